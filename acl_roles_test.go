package beequeue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// aclRun is a user of Redis that does all that its role asks for.
type aclRun struct {
	t     *testing.T
	site  *aclSite
	user  string
	notes *aclNotes
	all   *fixture // the same queue, in the hands of a user who may do anything
}

// aclBegin clears the queue, and forgets all scripts: so the first call of each is by
// its text.
func aclBegin(t *testing.T, site *aclSite, user string) *aclRun {
	t.Helper()
	r := &aclRun{t: t, site: site, user: user, notes: aclWatch(t, site)}
	r.all = &fixture{t: t, server: site.server, client: site.all, heard: make(chan struct{}, 1)}
	var err error
	r.all.Queue, err = beequeue.New(site.all, aclQueue, beequeue.Config{})
	require.NoError(t, err)
	_, err = r.all.Destroy(bounded(t))
	require.NoError(t, err)
	r.forget()
	await(t, "the subscriptions of those before to end", func() bool {
		return r.all.subscriptions("events")+r.all.subscriptions("earlierDelayed") == 0
	})
	return r
}

// forget has the servers forget all scripts.
func (r *aclRun) forget() {
	r.t.Helper()
	for _, node := range r.site.nodes {
		node.Do(r.t, "SCRIPT", "FLUSH")
	}
}

// end returns when all that was done has been noted.
func (r *aclRun) end() {
	r.t.Helper()
	r.all.close(r.all.Queue)
	r.notes.end()
}

// dial connects as the user. Quiet connections are pinged at once.
func (r *aclRun) dial(options ...func(*rueidis.ClientOption)) rueidis.Client {
	r.t.Helper()
	quick := func(o *rueidis.ClientOption) {
		o.Dialer.KeepAlive, o.Sentinel.Dialer.KeepAlive = 20*time.Millisecond, 20*time.Millisecond
		o.Sentinel.Username, o.Sentinel.Password = aclAtSentinel, aclPassword
	}
	url := strings.Replace(r.site.url, "redis://", "redis://"+r.user+":"+aclPassword+"@", 1)
	client, err := beequeue.Dial(bounded(r.t), url, append([]func(*rueidis.ClientOption){r.notes.watch, quick}, options...)...)
	require.NoError(r.t, err)
	r.t.Cleanup(client.Close)
	return client
}

// open makes the user's queue. OnError may get the errors that expected holds for.
func (r *aclRun) open(client rueidis.Client, config beequeue.Config, expected ...func(error) bool) *beequeue.Queue {
	r.t.Helper()
	q, err := beequeue.New(client, aclQueue, config)
	require.NoError(r.t, err)
	began := time.Now()
	q.OnError(func(err error) {
		if lateBeats.Excuses(err, began) {
			return
		}
		for _, match := range expected {
			if match(err) {
				return
			}
		}
		assert.NoError(r.t, err, "OnError was called")
	})
	r.t.Cleanup(func() { r.all.close(q) })
	return q
}

// begin does what every role does in the beginning, in every way there is.
func (r *aclRun) begin(config beequeue.Config, expected ...func(error) bool) (rueidis.Client, *beequeue.Queue) {
	r.t.Helper()
	shards := r.dial(func(o *rueidis.ClientOption) { o.ClusterOption.PreferClusterShards = true }) // as from Redis 8 on
	shards.Close()
	client := r.dial()
	q := r.open(client, config, expected...)
	require.NoError(r.t, q.Ready(bounded(r.t)))
	await(r.t, "a ping", func() bool { return r.notes.has("ping") })
	return client, q
}

// finish does what every role may meet in a cluster, a slot that moves, and closes the
// queue. The slot has no keys: then its old owner sends everybody on.
func (r *aclRun) finish(client rueidis.Client, q *beequeue.Queue) {
	r.t.Helper()
	if r.site.cluster != nil {
		_, err := r.all.Destroy(bounded(r.t))
		require.NoError(r.t, err)
		asked := make(chan error, 1)
		r.site.cluster.MigrateSlot(r.t, aclBase, func() {
			go func() {
				_, err := q.Counts(bounded(r.t))
				asked <- err
			}()
			await(r.t, "the client to ask at the slot's new owner", func() bool { return r.notes.has("asking") })
		})
		require.NoError(r.t, receive(r.t, asked, "Counts"))
	}
	r.all.close(q)
	client.Close()
}

// aclProduce saves jobs in every way, and waits for some.
func aclProduce(r *aclRun) {
	t := r.t
	client, q := r.begin(beequeue.Config{})
	save := func(q *beequeue.Queue, data any) *beequeue.Job {
		job := q.CreateJob(data)
		require.NoError(t, job.Save(bounded(t)))
		return job
	}
	n, err := strconv.Atoi(save(q, "first").ID)
	require.NoError(t, err)
	require.NoError(t, q.CreateJob("takes the next number").SetID(itoa(n+1)).Save(bounded(t)))
	save(q, "gets another")
	require.NoError(t, q.SaveAll(bounded(t), []*beequeue.Job{q.CreateJob(1), q.CreateJob(2)}))
	require.NoError(t, q.CreateJob("delayed").DelayUntil(time.Now().Add(time.Hour)).Save(bounded(t)))
	limited := r.open(client, beequeue.Config{MaxWaiting: 1})
	require.ErrorIs(t, limited.CreateJob("one too many").SetID("mine").Save(bounded(t)), beequeue.ErrQueueFull)
	r.forget()
	copied := r.open(client, beequeue.Config{SaveReplicas: 1})
	save(copied, "by its text")
	save(copied, "by its name")

	wanted := save(q, "wanted")
	got, err := q.GetJob(bounded(t), wanted.ID)
	require.NoError(t, err)
	require.Equal(t, wanted.ID, got.ID)
	_, err = q.Counts(bounded(t))
	require.NoError(t, err)

	watched := save(q, "watched")
	events := make(chan beequeue.Event, 10)
	ended := make(chan error, 1)
	go func() {
		_, err := watched.Watch(bounded(t), func(e beequeue.Event) { events <- e })
		ended <- err
	}()
	await(t, "a subscription", func() bool { return r.all.subscriptions("events") > 0 })
	running := process(t, r.all.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		return "done", job.ReportProgress(ctx, 1)
	})
	require.NoError(t, receive(t, ended, "the end of the job watched"))
	receive(t, events, "an event")
	_, err = wanted.Wait(bounded(t))
	require.NoError(t, err)
	require.NoError(t, running.stop())
	r.finish(client, q)
}

// aclWork runs jobs to every end they may come to.
func aclWork(r *aclRun) {
	t := r.t
	client, q := r.begin(beequeue.Config{StallInterval: time.Second, ShutdownTimeout: 50 * time.Millisecond}, as[*beequeue.RecordError])
	started, crowd := make(chan struct{}, 1), sync.WaitGroup{}
	handler := func(ctx context.Context, job *beequeue.Job) (any, error) {
		what := ""
		if err := job.Decode(&what); err != nil {
			return nil, err
		}
		switch what {
		case "fails":
			return nil, errBroken
		case "fails once":
			if job.Options.Retries > 0 {
				return nil, errBroken
			}
		case "progresses":
			return nil, job.ReportProgress(ctx, 50)
		case "stays":
			started <- struct{}{}
			<-ctx.Done()
		case "one of many":
			crowd.Done()
			crowd.Wait()
		}
		return what, nil
	}
	run := func(data string, settings ...func(*beequeue.Job)) {
		t.Helper()
		_, err := r.all.save(data, settings...).Wait(bounded(t))
		if data == "fails" {
			require.ErrorAs(t, err, new(*beequeue.FailedError))
		} else {
			require.NoError(t, err)
		}
	}
	again := func(s beequeue.Strategy) func(*beequeue.Job) {
		return func(j *beequeue.Job) { j.Retries(1).Backoff(s, time.Millisecond) }
	}

	running := process(t, q, 10, handler)
	run("succeeds")
	run("fails")
	run("fails once", again(beequeue.Immediate))
	run("fails once", again(beequeue.Fixed))
	run("progresses")
	run("delayed", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(20 * time.Millisecond)) })
	for range 3 {
		run(strings.Repeat("large", 2000))
	}
	r.all.must("HSET", "stalls", "last chance", "3")
	run("succeeds", func(j *beequeue.Job) { j.SetID("last chance") })
	r.all.plant("bad", "no record")
	await(t, "the record that cannot be read to fail", func() bool { return r.all.number("SISMEMBER", "failed", "bad") == 1 })
	lease := func() []rueidis.ZScore {
		leases, err := r.all.cmd("ZRANGE", "workers", "0", "-1", "WITHSCORES").AsZScores()
		require.NoError(t, err)
		return leases
	}
	r.all.save("stays")
	receive(t, started, "the handler that stays")
	for range 3 {
		before := lease()
		await(t, "a heartbeat", func() bool { return !slices.Equal(lease(), before) })
	}
	q.OnJobSucceeded(func(string, json.RawMessage) {}) // keeps the connection that is subscribed to what is delayed
	require.ErrorIs(t, running.stop(), beequeue.ErrUnfinished, "the job that stays is handed back")
	require.Equal(t, int64(1), r.all.number("LLEN", "waiting"))
	r.all.must("DEL", "waiting")

	await(t, "the end of a subscription", func() bool { return r.notes.has("unsubscribe") })
	const many = 140 // from 128 on, active is no short list
	crowd.Add(many)
	jobs := make([]*beequeue.Job, many)
	for i := range jobs {
		jobs[i] = r.all.CreateJob("one of many")
	}
	require.NoError(t, r.all.SaveAll(bounded(t), jobs))
	require.NoError(t, q.Drain(bounded(t), 2*many, handler))

	r.all.lose("lost", "")
	r.all.lose("left", "a worker that is gone")
	r.all.lose("lost too often", "")
	r.all.must("HSET", "stalls", "lost too often", "3", "removed", "1", "bad", "1")
	r.all.must("HSET", "owners", "removed", "a worker that is gone/1")
	require.Empty(t, r.all.check(q))
	require.Equal(t, []string{"left", "lost"}, r.all.check(q))
	r.all.must("SET", "stallBlock", "for ever")
	ids, err := q.CheckStalled(bounded(t))
	require.NoError(t, err)
	require.Empty(t, ids)
	hopeless, err := q.GetJob(bounded(t), "lost too often")
	require.NoError(t, err)
	_, err = hopeless.Wait(bounded(t))
	require.ErrorAs(t, err, new(*beequeue.FailedError))
	_, err = q.Counts(bounded(t))
	require.NoError(t, err)
	r.finish(client, q)
}

// aclPrepare puts a job in every state, and gives one that can be watched.
func aclPrepare(r *aclRun) *beequeue.Job {
	r.t.Helper()
	r.all.save("succeeds")
	r.all.save("fails")
	drain(r.t, r.all.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == `"fails"` {
			return nil, errBroken
		}
		return nil, nil
	})
	r.all.save("delayed", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
	r.all.lose("active", "")
	r.all.must("LPUSH", "waiting", "ghost")
	return r.all.save("waits", func(j *beequeue.Job) { j.Retries(1) })
}

// aclLook looks at everything.
func aclLook(r *aclRun, q *beequeue.Queue, watched *beequeue.Job) {
	t := r.t
	t.Helper()
	_, err := q.Counts(bounded(t))
	require.NoError(t, err)
	for _, state := range states {
		jobs, err := q.GetJobs(bounded(t), state, beequeue.Page{})
		require.NoError(t, err)
		require.NotEmpty(t, jobs, state)
		for _, job := range jobs {
			got, err := q.GetJob(bounded(t), job.ID)
			require.NoError(t, err)
			in, err := got.IsInSet(bounded(t), state)
			require.NoError(t, err)
			require.True(t, in, state)
		}
	}
	findings, err := q.Audit(bounded(t))
	require.NoError(t, err)
	require.Len(t, findings, 1, "the ghost")

	heard := make(chan string, 10)
	q.OnJobProgress(func(id string, _ json.RawMessage) { heard <- "progress of " + id })
	q.OnJobRetrying(func(id string, _ error) { heard <- "retry of " + id })
	q.OnJobFailed(func(id string, _ error) { heard <- "failure of " + id })
	q.OnJobSucceeded(func(id string, _ json.RawMessage) { heard <- "success of " + id })
	await(t, "a subscription", func() bool { return r.all.subscriptions("events") > 0 })
	job, err := q.GetJob(bounded(t), watched.ID)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := job.Watch(bounded(t), nil)
		ended <- err
	}()
	running := process(t, r.all.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if job.Options.Retries > 0 {
			return nil, errBroken
		}
		return "done", job.ReportProgress(ctx, 1)
	})
	require.NoError(t, receive(t, ended, "the end of the job watched"))
	missing := map[string]bool{"retry of " + job.ID: true, "progress of " + job.ID: true, "success of " + job.ID: true}
	for len(missing) > 0 { // after a slot has moved, they may come out of order, and what was said before, late
		delete(missing, receive(t, heard, "an event"))
	}
	require.NoError(t, running.stop())
}

// aclObserve reads whatever can be read, and hears whatever is said.
func aclObserve(r *aclRun) {
	client, q := r.begin(beequeue.Config{})
	aclLook(r, q, aclPrepare(r))
	r.finish(client, q)
}

// aclOperate mends, removes and retries jobs, and destroys the queue.
func aclOperate(r *aclRun) {
	t := r.t
	client, q := r.begin(beequeue.Config{})
	aclLook(r, q, aclPrepare(r))

	failed, err := q.GetJobs(bounded(t), beequeue.StateFailed, beequeue.Page{})
	require.NoError(t, err)
	require.NoError(t, failed[0].Retry(bounded(t)))
	require.NoError(t, failed[0].Remove(bounded(t)))
	require.NoError(t, q.RemoveJob(bounded(t), "active"))

	r.all.plant("twice", `{"status":"created"}`)
	r.all.must("LPUSH", "waiting", "twice")
	r.all.must("HSET", "jobs",
		"orphan", `{"status":"created"}`, "has succeeded", `{"status":"succeeded"}`, "has failed", `{"status":"failed"}`,
		"delayed orphan", fmt.Sprintf(`{"status":"created","options":{"delay":%d}}`, time.Now().Add(time.Hour).UnixMilli()))
	r.all.must("LPUSH", "active", "owned")
	r.all.must("HSET", "jobs", "owned", `{"status":"created"}`)
	r.all.must("LPUSH", "waiting", "owned")
	r.all.must("HSET", "owners", "owned", "a worker that is gone/1")
	findings, err := q.Repair(bounded(t))
	require.NoError(t, err)
	require.Len(t, findings, 6)
	_, err = q.Destroy(bounded(t))
	require.NoError(t, err)
	r.finish(client, q)
}
