package servers_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

func TestKeyPrefix(t *testing.T) {
	t.Parallel()
	client := queuetest.Mini.Dial(t, "layout")
	t.Cleanup(client.Close)
	for _, c := range []struct {
		prefix, name string
		plain        bool
		want         string
	}{
		{"", "push", false, "bq:{push}:"},
		{"app", "push", false, "app:{push}:"},
		{"", "with space:and colon", false, "bq:{with space:and colon}:"},
		{"", "{push}", false, "bq:{push}:"},
		{"", "mail-{eu}", false, "bq:mail-{eu}:"},
		{"{bq}", "push", false, "{bq}:push:"},
		{"{app}:bq", "push", false, "{app}:bq:push:"},
		{"", "push", true, "bq:push:"},
		{"", "{push}", true, "bq:{push}:"},
		{"", "pu}sh", true, "bq:pu}sh:"},
	} {
		q, err := beequeue.New(client, c.name, beequeue.Config{Prefix: c.prefix, PlainKeys: c.plain})
		require.NoError(t, err, "%+v", c)
		require.Equal(t, c.want, q.KeyPrefix(), "%+v", c)
		require.Equal(t, c.name, q.Name())
		require.NoError(t, q.Close(queuetest.Bounded(t)))
	}
}

func TestKeyLayoutRefused(t *testing.T) {
	t.Parallel()
	client := queuetest.Mini.Dial(t, "layout")
	t.Cleanup(client.Close)
	for _, c := range []struct{ prefix, name, want string }{
		{"", "", "the queue's name is empty"},
		{"", "pu{sh", "write the tag as {push}"},
		{"", "pu}sh", "write the tag as {push}"},
		{"", "}push{", "write the tag as {push}"},
		{"", "{}push", "write the tag as {push}"},
		{"b{q", "push", "write the tag as {push}"},
		{"b}q", "push", "write the tag as {push}"},
	} {
		_, err := beequeue.New(client, c.name, beequeue.Config{Prefix: c.prefix})
		require.ErrorIs(t, err, beequeue.ErrKeyLayout, "%+v", c)
		require.ErrorContains(t, err, c.want, "%+v", c)
	}
}

// Every layout that New and Ready accept works, on every server.
func TestLayoutsWork(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		client := s.Dial(t, "layouts")
		t.Cleanup(client.Close)
		for name, c := range map[string]struct {
			name   string
			config beequeue.Config
		}{
			"default":       {"layout-a", beequeue.Config{}},
			"tag in name":   {"{layout-b}", beequeue.Config{}},
			"tag in prefix": {"layout-c", beequeue.Config{Prefix: "{bq}"}},
			"odd name":      {"layout d:é\n\"%s\"", beequeue.Config{}},
			"plain":         {"layout-e", beequeue.Config{PlainKeys: true}},
			"plain, tagged": {"{layout-f}", beequeue.Config{PlainKeys: true}},
		} {
			q, err := beequeue.New(client, c.name, c.config)
			if s.Masters > 0 && name == "plain" {
				require.ErrorIs(t, err, beequeue.ErrKeyLayout, name)
				require.ErrorContains(t, err, "leave Config.PlainKeys off")
				require.ErrorContains(t, err, "new Queue('{name}')")
				continue
			}
			require.NoError(t, err, name)
			require.NoError(t, q.Ready(queuetest.Bounded(t)), name)
			exercise(t, q)
			_, err = q.Destroy(queuetest.Bounded(t))
			require.NoError(t, err, name)
			require.NoError(t, q.Close(queuetest.Bounded(t)), name)
		}
	})
}

// exercise runs every script and command there is once.
func exercise(t *testing.T, q *beequeue.Queue) {
	t.Helper()
	ctx := queuetest.Bounded(t)
	job := q.CreateJob("x")
	require.NoError(t, job.Save(ctx))
	queuetest.Drain(t, q, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if err := job.ReportProgress(ctx, 1); err != nil {
			return nil, err
		}
		return nil, queuetest.ErrBroken
	})
	_, err := job.Wait(ctx)
	require.ErrorContains(t, err, "broken")
	require.NoError(t, job.Retry(ctx))
	r := queuetest.Process(t, q, 1, queuetest.Succeed)
	_, err = job.Wait(ctx)
	require.NoError(t, err)
	require.NoError(t, r.Stop())
	_, err = q.CheckStalled(ctx)
	require.NoError(t, err)
	for _, state := range queuetest.States {
		_, err = q.GetJobs(ctx, state, beequeue.Page{})
		require.NoError(t, err)
		in, err := job.IsInSet(ctx, state)
		require.NoError(t, err)
		require.Equal(t, state == beequeue.StateSucceeded, in, state)
	}
	require.NoError(t, job.Remove(ctx))
	counts, err := q.Counts(ctx)
	require.NoError(t, err)
	require.Equal(t, beequeue.Counts{NewestJob: 1}, counts)
}

// A client may speak to one node of a cluster as if the node were alone. Ready finds out
// what such a queue cannot do, and its error says what to write instead.
func TestLayoutSingleClientOnACluster(t *testing.T) {
	t.Parallel()
	for _, s := range queuetest.Servers {
		if s.Masters == 0 {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			client := s.Dial(t, "single", func(o *rueidis.ClientOption) { o.ForceSingleClient = true })
			t.Cleanup(client.Close)

			q, err := beequeue.New(client, "layout-g", beequeue.Config{PlainKeys: true})
			require.NoError(t, err, "New cannot tell")
			err = q.Ready(queuetest.Bounded(t))
			require.ErrorIs(t, err, beequeue.ErrKeyLayout)
			require.ErrorContains(t, err, "leave Config.PlainKeys off")
			require.ErrorIs(t, q.Process(queuetest.Bounded(t), 1, queuetest.Succeed), beequeue.ErrKeyLayout)
			require.ErrorIs(t, q.CreateJob(1).Save(queuetest.Bounded(t)), beequeue.ErrKeyLayout)
			require.NoError(t, q.Close(queuetest.Bounded(t)))
			if s.Masters == 1 {
				return
			}

			// Some of several queues lie in slots of other nodes.
			refused := 0
			for i := range 20 {
				q, err := beequeue.New(client, "layout-h"+strconv.Itoa(i), beequeue.Config{})
				require.NoError(t, err)
				if err := q.Ready(queuetest.Bounded(t)); err != nil {
					refused++
					require.ErrorIs(t, err, beequeue.ErrKeyLayout)
					require.ErrorContains(t, err, "without ForceSingleClient")
					require.ErrorIs(t, q.CreateJob(1).Save(queuetest.Bounded(t)), beequeue.ErrKeyLayout)
				}
				require.NoError(t, q.Close(queuetest.Bounded(t)))
			}
			require.Positive(t, refused)
		})
	}
}

// miniredis passes for a cluster unless told otherwise. Then the client checks slots, and
// would panic.
func TestPlainKeysRefusedByNew(t *testing.T) {
	t.Parallel()
	client := queuetest.Mini.Dial(t, "mode", func(o *rueidis.ClientOption) { o.ForceSingleClient = false })
	t.Cleanup(client.Close)
	require.Equal(t, rueidis.ClientModeCluster, client.Mode())
	for _, config := range []beequeue.Config{{PlainKeys: true}, {PlainKeys: true, Prefix: "a}b{c"}} {
		_, err := beequeue.New(client, "push", config)
		require.ErrorIs(t, err, beequeue.ErrKeyLayout)
	}
	for _, config := range []beequeue.Config{{}, {Prefix: "{bq}"}, {Prefix: "{bq}", PlainKeys: true}} {
		q, err := beequeue.New(client, "push", config)
		require.NoError(t, err)
		require.NotPanics(t, func() { exercise(t, q) })
		_, err = q.Destroy(queuetest.Bounded(t))
		require.NoError(t, err)
		require.NoError(t, q.Close(queuetest.Bounded(t)))
	}
}
