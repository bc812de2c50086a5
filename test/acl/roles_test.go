package acl_test

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
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// roleRun is a user of Redis that does all that its role includes.
type roleRun struct {
	t     *testing.T
	site  *redisSite
	user  string
	notes *wireNotes
	all   *queuetest.Fixture // the same queue, in the hands of a user who may do anything
}

// startRun clears the queue, and has the servers forget all scripts, so that the first call
// of each sends its text.
func startRun(t *testing.T, site *redisSite, user string) *roleRun {
	t.Helper()
	r := &roleRun{t: t, site: site, user: user, notes: takeNotes(t, site)}
	r.all = queuetest.Attach(t, site.all, queueName, site.clients...)
	_, err := r.all.Destroy(queuetest.Bounded(t))
	require.NoError(t, err)
	r.forget()
	queuetest.Await(t, "the subscriptions of those before to end", func() bool {
		return r.all.Subscriptions("events")+r.all.Subscriptions("earlierDelayed") == 0
	})
	return r
}

// forget has the servers forget all scripts.
func (r *roleRun) forget() {
	r.t.Helper()
	for _, node := range r.site.nodes {
		node.Do(r.t, "SCRIPT", "FLUSH")
	}
}

// end returns when all that was done has been noted.
func (r *roleRun) end() {
	r.t.Helper()
	r.all.CloseQueue(r.all.Queue)
	r.notes.end()
}

// dial connects as the user. Quiet connections are pinged at once.
func (r *roleRun) dial(options ...func(*rueidis.ClientOption)) rueidis.Client {
	r.t.Helper()
	quick := func(o *rueidis.ClientOption) {
		o.Dialer.KeepAlive, o.Sentinel.Dialer.KeepAlive = 20*time.Millisecond, 20*time.Millisecond
		o.Sentinel.Username, o.Sentinel.Password = sentinelUser, password
	}
	url := strings.Replace(r.site.url, "redis://", "redis://"+r.user+":"+password+"@", 1)
	client, err := beequeue.Dial(queuetest.Bounded(r.t), url, append([]func(*rueidis.ClientOption){r.notes.watch, quick}, options...)...)
	require.NoError(r.t, err)
	r.t.Cleanup(client.Close)
	return client
}

// open makes the user's queue. OnError may get the errors that expected holds for.
func (r *roleRun) open(client rueidis.Client, config beequeue.Config, expected ...func(error) bool) *beequeue.Queue {
	r.t.Helper()
	q, err := beequeue.New(client, queueName, config)
	require.NoError(r.t, err)
	began := time.Now()
	q.OnError(func(err error) {
		if queuetest.Excuses(err, began) {
			return
		}
		for _, match := range expected {
			if match(err) {
				return
			}
		}
		assert.NoError(r.t, err, "OnError was called")
	})
	r.t.Cleanup(func() { r.all.CloseQueue(q) })
	return q
}

// begin does what every role does in the beginning, in every way there is.
func (r *roleRun) begin(config beequeue.Config, expected ...func(error) bool) (rueidis.Client, *beequeue.Queue) {
	r.t.Helper()
	shards := r.dial(func(o *rueidis.ClientOption) { o.ClusterOption.PreferClusterShards = true }) // as from Redis 8 on
	shards.Close()
	client := r.dial()
	q := r.open(client, config, expected...)
	require.NoError(r.t, q.Ready(queuetest.Bounded(r.t)))
	queuetest.Await(r.t, "a ping", func() bool { return r.notes.has("ping") })
	return client, q
}

// finish has a cluster move the queue's slot, as every role may meet it, and closes the
// queue. The slot has no keys, because its old owner sends clients on only then.
func (r *roleRun) finish(client rueidis.Client, q *beequeue.Queue) {
	r.t.Helper()
	if r.site.cluster != nil {
		_, err := r.all.Destroy(queuetest.Bounded(r.t))
		require.NoError(r.t, err)
		asked := make(chan error, 1)
		r.site.cluster.MigrateSlot(r.t, keyBase, func() {
			go func() {
				_, err := q.Counts(queuetest.Bounded(r.t))
				asked <- err
			}()
			queuetest.Await(r.t, "the client to ask at the slot's new owner", func() bool { return r.notes.has("asking") })
		})
		require.NoError(r.t, queuetest.Receive(r.t, asked, "Counts"))
	}
	r.all.CloseQueue(q)
	client.Close()
}

// produce saves jobs in every way, and waits for some.
func produce(r *roleRun) {
	t := r.t
	client, q := r.begin(beequeue.Config{})
	save := func(q *beequeue.Queue, data any) *beequeue.Job {
		job := q.CreateJob(data)
		require.NoError(t, job.Save(queuetest.Bounded(t)))
		return job
	}
	n, err := strconv.Atoi(save(q, "first").ID)
	require.NoError(t, err)
	require.NoError(t, q.CreateJob("takes the next number").SetID(strconv.Itoa(n+1)).Save(queuetest.Bounded(t)))
	save(q, "gets another")
	require.NoError(t, q.SaveAll(queuetest.Bounded(t), []*beequeue.Job{q.CreateJob(1), q.CreateJob(2)}))
	require.NoError(t, q.CreateJob("delayed").DelayUntil(time.Now().Add(time.Hour)).Save(queuetest.Bounded(t)))
	limited := r.open(client, beequeue.Config{MaxWaiting: 1})
	require.ErrorIs(t, limited.CreateJob("one too many").SetID("mine").Save(queuetest.Bounded(t)), beequeue.ErrQueueFull)
	r.forget()
	copied := r.open(client, beequeue.Config{SaveReplicas: 1})
	save(copied, "by its text")
	save(copied, "by its name")

	wanted := save(q, "wanted")
	got, err := q.GetJob(queuetest.Bounded(t), wanted.ID)
	require.NoError(t, err)
	require.Equal(t, wanted.ID, got.ID)
	_, err = q.Counts(queuetest.Bounded(t))
	require.NoError(t, err)

	watched := save(q, "watched")
	events := make(chan beequeue.Event, 10)
	ended := make(chan error, 1)
	go func() {
		_, err := watched.Watch(queuetest.Bounded(t), func(e beequeue.Event) { events <- e })
		ended <- err
	}()
	queuetest.Await(t, "a subscription", func() bool { return r.all.Subscriptions("events") > 0 })
	running := queuetest.Process(t, r.all.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		return "done", job.ReportProgress(ctx, 1)
	})
	require.NoError(t, queuetest.Receive(t, ended, "the end of the job watched"))
	queuetest.Receive(t, events, "an event")
	_, err = wanted.Wait(queuetest.Bounded(t))
	require.NoError(t, err)
	require.NoError(t, running.Stop())
	r.finish(client, q)
}

// work runs jobs to every end they may come to.
func work(r *roleRun) {
	t := r.t
	client, q := r.begin(beequeue.Config{StallInterval: time.Second, ShutdownTimeout: 50 * time.Millisecond}, queuetest.As[*beequeue.RecordError])
	started, crowd := make(chan struct{}, 1), sync.WaitGroup{}
	handler := func(ctx context.Context, job *beequeue.Job) (any, error) {
		what := ""
		if err := job.Decode(&what); err != nil {
			return nil, err
		}
		switch what {
		case "fails":
			return nil, queuetest.ErrBroken
		case "fails once":
			if job.Options.Retries > 0 {
				return nil, queuetest.ErrBroken
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
		_, err := r.all.Save(data, settings...).Wait(queuetest.Bounded(t))
		if data == "fails" {
			require.ErrorAs(t, err, new(*beequeue.FailedError))
		} else {
			require.NoError(t, err)
		}
	}
	again := func(s beequeue.Strategy) func(*beequeue.Job) {
		return func(j *beequeue.Job) { j.Retries(1).Backoff(s, time.Millisecond) }
	}

	running := queuetest.Process(t, q, 10, handler)
	run("succeeds")
	run("fails")
	run("fails once", again(beequeue.Immediate))
	run("fails once", again(beequeue.Fixed))
	run("progresses")
	run("delayed", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(20 * time.Millisecond)) })
	for range 3 {
		run(strings.Repeat("large", 2000))
	}
	r.all.Must("HSET", "stalls", "last chance", "3")
	run("succeeds", func(j *beequeue.Job) { j.SetID("last chance") })
	r.all.Plant("bad", "no record")
	queuetest.Await(t, "the record that cannot be read to fail", func() bool { return r.all.Number("SISMEMBER", "failed", "bad") == 1 })
	lease := func() []rueidis.ZScore {
		leases, err := r.all.Cmd("ZRANGE", "workers", "0", "-1", "WITHSCORES").AsZScores()
		require.NoError(t, err)
		return leases
	}
	r.all.Save("stays")
	queuetest.Receive(t, started, "the handler that stays")
	r.all.Lose("lost by another", "a worker that is gone")
	queuetest.Await(t, "the job of another worker to be taken back", func() bool {
		return r.all.Number("SISMEMBER", "failed", "lost by another") == 1 // its data is no text
	})
	for range 3 {
		before := lease()
		queuetest.Await(t, "a heartbeat", func() bool { return !slices.Equal(lease(), before) })
	}
	q.OnJobSucceeded(func(string, json.RawMessage) {}) // keeps the connection that is subscribed to what is delayed
	require.ErrorIs(t, running.Stop(), beequeue.ErrUnfinished, "the job that stays is handed back")
	require.Equal(t, int64(1), r.all.Number("LLEN", "waiting"))
	r.all.Must("DEL", "waiting")

	queuetest.Await(t, "the end of a subscription", func() bool { return r.notes.has("unsubscribe") })
	const many = 140 // from 128 on, active is no short list
	crowd.Add(many)
	jobs := make([]*beequeue.Job, many)
	for i := range jobs {
		jobs[i] = r.all.CreateJob("one of many")
	}
	require.NoError(t, r.all.SaveAll(queuetest.Bounded(t), jobs))
	require.NoError(t, q.Drain(queuetest.Bounded(t), 2*many, handler))

	r.all.Lose("lost", "")
	r.all.Lose("left", "a worker that is gone")
	r.all.Lose("lost too often", "")
	r.all.Must("HSET", "stalls", "lost too often", "3", "removed", "1", "bad", "1")
	r.all.Must("HSET", "owners", "removed", "a worker that is gone/1")
	require.Empty(t, r.all.StallCheck(q))
	require.Equal(t, []string{"left", "lost"}, r.all.StallCheck(q))
	r.all.Must("SET", "stallBlock", "for ever")
	ids, err := q.CheckStalled(queuetest.Bounded(t))
	require.NoError(t, err)
	require.Empty(t, ids)
	hopeless, err := q.GetJob(queuetest.Bounded(t), "lost too often")
	require.NoError(t, err)
	_, err = hopeless.Wait(queuetest.Bounded(t))
	require.ErrorAs(t, err, new(*beequeue.FailedError))
	_, err = q.Counts(queuetest.Bounded(t))
	require.NoError(t, err)
	r.finish(client, q)
}

// prepare puts a job in every state, and gives one that can be watched.
func prepare(r *roleRun) *beequeue.Job {
	r.t.Helper()
	r.all.Save("succeeds")
	r.all.Save("fails")
	queuetest.Drain(r.t, r.all.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == `"fails"` {
			return nil, queuetest.ErrBroken
		}
		return nil, nil
	})
	r.all.Save("delayed", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
	r.all.Lose("active", "")
	r.all.Must("LPUSH", "waiting", "ghost")
	return r.all.Save("waits", func(j *beequeue.Job) { j.Retries(1) })
}

// look looks at everything.
func look(r *roleRun, q *beequeue.Queue, watched *beequeue.Job) {
	t := r.t
	t.Helper()
	_, err := q.Counts(queuetest.Bounded(t))
	require.NoError(t, err)
	for _, state := range queuetest.States {
		jobs, err := q.GetJobs(queuetest.Bounded(t), state, beequeue.Page{})
		require.NoError(t, err)
		require.NotEmpty(t, jobs, state)
		for _, job := range jobs {
			got, err := q.GetJob(queuetest.Bounded(t), job.ID)
			require.NoError(t, err)
			in, err := got.IsInSet(queuetest.Bounded(t), state)
			require.NoError(t, err)
			require.True(t, in, state)
		}
	}
	findings, err := q.Audit(queuetest.Bounded(t))
	require.NoError(t, err)
	require.Len(t, findings, 1, "the ghost")

	heard := make(chan string, 10)
	q.OnJobProgress(func(id string, _ json.RawMessage) { heard <- "progress of " + id })
	q.OnJobRetrying(func(id string, _ error) { heard <- "retry of " + id })
	q.OnJobFailed(func(id string, _ error) { heard <- "failure of " + id })
	q.OnJobSucceeded(func(id string, _ json.RawMessage) { heard <- "success of " + id })
	queuetest.Await(t, "a subscription", func() bool { return r.all.Subscriptions("events") > 0 })
	job, err := q.GetJob(queuetest.Bounded(t), watched.ID)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := job.Watch(queuetest.Bounded(t), nil)
		ended <- err
	}()
	running := queuetest.Process(t, r.all.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if job.Options.Retries > 0 {
			return nil, queuetest.ErrBroken
		}
		return "done", job.ReportProgress(ctx, 1)
	})
	require.NoError(t, queuetest.Receive(t, ended, "the end of the job watched"))
	missing := map[string]bool{"retry of " + job.ID: true, "progress of " + job.ID: true, "success of " + job.ID: true}
	for len(missing) > 0 { // after a slot has moved, they may come out of order, and what was said before, late
		delete(missing, queuetest.Receive(t, heard, "an event"))
	}
	require.NoError(t, running.Stop())
}

// observe reads whatever can be read, and hears whatever is said.
func observe(r *roleRun) {
	client, q := r.begin(beequeue.Config{})
	look(r, q, prepare(r))
	r.finish(client, q)
}

// operate mends, removes and retries jobs, and destroys the queue.
func operate(r *roleRun) {
	t := r.t
	client, q := r.begin(beequeue.Config{})
	look(r, q, prepare(r))

	failed, err := q.GetJobs(queuetest.Bounded(t), beequeue.StateFailed, beequeue.Page{})
	require.NoError(t, err)
	require.NoError(t, failed[0].Retry(queuetest.Bounded(t)))
	require.NoError(t, failed[0].Remove(queuetest.Bounded(t)))
	require.NoError(t, q.RemoveJob(queuetest.Bounded(t), "active"))

	r.all.Plant("twice", `{"status":"created"}`)
	r.all.Must("LPUSH", "waiting", "twice")
	r.all.Must("HSET", "jobs",
		"orphan", `{"status":"created"}`, "has succeeded", `{"status":"succeeded"}`, "has failed", `{"status":"failed"}`,
		"delayed orphan", fmt.Sprintf(`{"status":"created","options":{"delay":%d}}`, time.Now().Add(time.Hour).UnixMilli()))
	r.all.Must("LPUSH", "active", "owned")
	r.all.Must("HSET", "jobs", "owned", `{"status":"created"}`)
	r.all.Must("LPUSH", "waiting", "owned")
	r.all.Must("HSET", "owners", "owned", "a worker that is gone/1")
	findings, err := q.Repair(queuetest.Bounded(t))
	require.NoError(t, err)
	require.Len(t, findings, 6)
	_, err = q.Destroy(queuetest.Bounded(t))
	require.NoError(t, err)
	r.finish(client, q)
}
