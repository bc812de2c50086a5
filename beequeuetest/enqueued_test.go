package beequeuetest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/beequeuetest"
)

func TestEnqueued(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	beequeuetest.RequireNothingEnqueued(t, q)
	due := kit.Now().Add(time.Hour)
	require.NoError(t, q.CreateJob(push{Target: "last"}).DelayUntil(due.Add(time.Second)).Save(t.Context()))
	require.NoError(t, q.CreateJob(push{Target: "third"}).DelayUntil(due).
		Retries(3).Timeout(time.Minute).Backoff(beequeue.Exponential, time.Second).Save(t.Context()))
	save(t, q, push{Target: "first", Body: "<hi>"}, push{Target: "second"})

	jobs := beequeuetest.RequireEnqueuedData(t, q,
		push{Target: "first", Body: "<hi>"}, push{Target: "second"}, push{Target: "third"}, push{Target: "last"})
	assert.Equal(t, []string{"3", "4", "2", "1"}, ids(jobs))
	options := jobs[2].Options
	assert.True(t, due.Equal(options.DelayUntil), "%v", options.DelayUntil)
	assert.Equal(t, 3, options.Retries)
	assert.Equal(t, time.Minute, options.Timeout)
	assert.Equal(t, beequeue.Backoff{Strategy: beequeue.Exponential, Delay: time.Second}, options.Backoff)

	assert.Equal(t, ids(jobs), ids(beequeuetest.RequireEnqueued(t, q, 4)))
	assert.Equal(t, ids(jobs), ids(beequeuetest.Enqueued(t, q)))
	var order []string
	for _, o := range kit.RunAll(t, q, succeed) {
		order = append(order, o.Job.ID)
	}
	assert.Equal(t, ids(jobs), order, "the order in which they run")
}

func TestEnqueuedMany(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	const n = 1200
	jobs := make([]*beequeue.Job, n)
	want := make([]int, n)
	for i := range jobs {
		jobs[i], want[i] = q.CreateJob(i), i
	}
	for chunk := range slices.Chunk(jobs, 400) {
		require.NoError(t, q.SaveAll(t.Context(), chunk))
	}
	beequeuetest.RequireEnqueuedData(t, q, want...)
	want[n-1] = -1
	message := failure(t, func(tb *fakeTB) { beequeuetest.RequireEnqueuedData(tb, q, want...) })
	assert.Contains(t, message, "- -1\n+ 1199")
	want[n-1], want[600] = n-1, -1
	message = failure(t, func(tb *fakeTB) { beequeuetest.RequireEnqueuedData(tb, q, want[100:]...) })
	assert.Contains(t, message, "+ 0\n+ 1\n")
	message = failure(t, func(tb *fakeTB) { beequeuetest.RequireEnqueuedData(tb, q, want...) })
	assert.Contains(t, message, "  599\n- -1\n+ 600\n  601\n")
	assert.Less(t, strings.Count(message, "\n"), 30, "%s", message)
}

func ids(jobs []*beequeue.Job) []string {
	all := make([]string, len(jobs))
	for i, job := range jobs {
		all[i] = job.ID
	}
	return all
}

func TestFailures(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	require.NoError(t, q.CreateJob(push{Target: "mh", Body: "later"}).DelayUntil(kit.Now().Add(time.Hour)).Save(t.Context()))
	save(t, q, push{Target: "mh"})

	for _, c := range []struct {
		name string
		f    func(*fakeTB)
		want string
	}{
		{
			"count",
			func(tb *fakeTB) { beequeuetest.RequireEnqueued(tb, q, 1) },
			`beequeuetest: queue "push": want 1 jobs enqueued, got 2
  waiting job "2": {"target":"mh"}
  delayed job "1": {"target":"mh","body":"later"}`,
		},
		{
			"nothing",
			func(tb *fakeTB) { beequeuetest.RequireNothingEnqueued(tb, q) },
			`beequeuetest: queue "push": want 0 jobs enqueued, got 2`,
		},
		{
			"data",
			func(tb *fakeTB) {
				beequeuetest.RequireEnqueuedData(tb, q, push{Target: "mh"}, push{Target: "mh", Body: "now"})
			},
			`beequeuetest: queue "push": data of the jobs enqueued differs (-want +got):
  {
    "target": "mh"
  }
  {
    "target": "mh",
-   "body": "now"
+   "body": "later"
  }
`,
		},
		{
			"one more",
			func(tb *fakeTB) { beequeuetest.RequireEnqueuedData(tb, q, push{Target: "mh"}) },
			`+   "body": "later"`,
		},
		{
			"other type",
			func(tb *fakeTB) { beequeuetest.RequireEnqueuedData(tb, q, struct{ Target string }{"mh"}) },
			`data of job "1" is no struct { Target string }: json: unknown field "body": {"target":"mh","body":"later"}`,
		},
		{
			"want is no JSON",
			func(tb *fakeTB) { beequeuetest.RequireEnqueuedData(tb, q, any(func() {})) },
			`marshal want: json: unsupported type: func()`,
		},
		{
			"no handler",
			func(tb *fakeTB) { kit.Run(tb, q, nil) },
			`handler is nil`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			assert.Contains(t, failure(t, c.f), c.want)
		})
	}
}
