package beequeuetest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/beequeuetest"
	"github.com/gobeequeue/beequeue/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

type push struct {
	Target string `json:"target"`
	Body   string `json:"body,omitempty"`
}

func save(t *testing.T, q *beequeue.Queue, pushes ...push) {
	t.Helper()
	for _, p := range pushes {
		require.NoError(t, q.CreateJob(p).Save(t.Context()))
	}
}

func succeed(context.Context, *beequeue.Job) (any, error) { return "sent", nil }

var errOffline = errors.New("offline")

func offline(context.Context, *beequeue.Job) (any, error) { return nil, errOffline }

// summary gives outcomes as text: id, status.
func summary(outcomes []beequeuetest.Outcome) []string {
	words := []string{}
	for _, o := range outcomes {
		words = append(words, o.Job.ID+" "+string(o.Status))
	}
	return words
}

func TestRun(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	save(t, q, push{Target: "a"}, push{Target: "b"})
	require.NoError(t, q.CreateJob(push{Target: "c"}).Retries(1).Save(t.Context()))
	require.NoError(t, q.CreateJob(push{Target: "later"}).DelayUntil(kit.Now().Add(time.Hour)).Save(t.Context()))

	outcomes := kit.Run(t, q, func(ctx context.Context, job *beequeue.Job) (any, error) {
		var p push
		if err := job.Decode(&p); err != nil {
			return nil, err
		}
		switch p.Target {
		case "b":
			panic("no such target")
		case "c":
			return nil, errOffline
		case "a":
			// A job that a handler saves is run too.
			return p, q.CreateJob(push{Target: "d"}).Save(ctx)
		}
		return nil, nil
	})

	assert.Equal(t, []string{"1 succeeded", "2 failed", "3 retrying", "5 succeeded", "3 failed"}, summary(outcomes))
	assert.JSONEq(t, `{"target":"a"}`, string(outcomes[0].Result))
	var panicked *beequeue.PanicError
	require.ErrorAs(t, outcomes[1].Err, &panicked)
	assert.Equal(t, "no such target", panicked.Value)
	require.ErrorIs(t, outcomes[2].Err, errOffline)
	require.ErrorIs(t, outcomes[4].Err, errOffline)
	assert.Nil(t, outcomes[3].Result)
	assert.Len(t, outcomes[4].Job.Options.Stacktraces, 2)
	beequeuetest.RequireEnqueuedData(t, q, push{Target: "later"})

	assert.Empty(t, kit.Run(t, q, succeed), "nothing is due")
	kit.Advance(time.Hour)
	assert.Equal(t, []string{"4 succeeded"}, summary(kit.Run(t, q, succeed)))
	beequeuetest.RequireNothingEnqueued(t, q)
}

func TestRunOfJobThatIsRemoved(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	save(t, q, push{Target: "a"}, push{Target: "b"})
	outcomes := kit.Run(t, q, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if job.ID == "1" {
			return nil, job.Remove(ctx)
		}
		return nil, nil
	})
	assert.Equal(t, []string{"1 ", "2 succeeded"}, summary(outcomes))
}

// A removed job that was saved again is another run.
func TestRunOfJobThatIsReplaced(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	require.NoError(t, q.CreateJob(nil).SetID("daily").Save(t.Context()))
	replaced := false
	outcomes := kit.Run(t, q, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if replaced {
			return nil, nil
		}
		replaced = true
		return nil, errors.Join(job.Remove(ctx), q.CreateJob(nil).SetID("daily").Save(ctx))
	})
	assert.Equal(t, []string{"daily ", "daily succeeded"}, summary(outcomes))
}

// A handler that ignores its timeout has failed by then, and is waited for.
func TestRunOfStuckHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := beequeuetest.New(t)
		q := kit.Queue("push", beequeue.Config{})
		require.NoError(t, q.CreateJob(nil).Timeout(time.Second).Save(t.Context()))
		outcomes := kit.Run(t, q, func(context.Context, *beequeue.Job) (any, error) {
			<-time.After(time.Minute)
			return nil, nil
		})
		assert.Equal(t, []string{"1 failed"}, summary(outcomes))
		require.ErrorIs(t, outcomes[0].Err, beequeue.ErrTimeout)
	})
}

func TestRunWithoutRecords(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{RemoveOnSuccess: true, RemoveOnFailure: true, NoEvents: true})
	save(t, q, push{Target: "a"})
	assert.Equal(t, []string{"1 failed"}, summary(kit.Run(t, q, offline)))
	save(t, q, push{Target: "a"})
	assert.Equal(t, []string{"2 succeeded"}, summary(kit.Run(t, q, succeed)))
}

// Each Run has its own outcomes only, whichever queue value it is given.
func TestRunsAreApart(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	producer := kit.Queue("push", beequeue.Config{})
	worker := kit.Queue("push", beequeue.Config{})
	other := kit.Queue("mail", beequeue.Config{})
	own, err := beequeue.New(kit.Client(), "push", beequeue.Config{})
	require.NoError(t, err)
	defer func() { assert.NoError(t, own.Close(context.Background())) }()

	var all [][]beequeuetest.Outcome
	for _, q := range []*beequeue.Queue{worker, own, worker} {
		save(t, producer, push{Target: "a"})
		all = append(all, kit.Run(t, q, succeed))
	}
	for i, outcomes := range all {
		assert.Equal(t, []string{fmt.Sprint(i+1, " succeeded")}, summary(outcomes))
	}
	assert.Empty(t, kit.Run(t, other, succeed))
}

func TestRunAll(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	start := kit.Now()
	require.NoError(t, q.CreateJob(nil).DelayUntil(start.Add(time.Hour)).Save(t.Context()))
	require.NoError(t, q.CreateJob(nil).Retries(3).Backoff(beequeue.Exponential, 10*time.Minute).Save(t.Context()))

	var at []time.Duration
	outcomes := kit.RunAll(t, q, func(_ context.Context, job *beequeue.Job) (any, error) {
		at = append(at, kit.Now().Sub(start).Round(time.Minute))
		if job.ID == "2" {
			return nil, errOffline
		}
		return nil, nil
	})
	assert.Equal(t, []string{"2 retrying", "2 retrying", "2 retrying", "1 succeeded", "2 failed"}, summary(outcomes))
	assert.Equal(t, []time.Duration{0, 10 * time.Minute, 30 * time.Minute, time.Hour, 70 * time.Minute}, at)
	beequeuetest.RequireNothingEnqueued(t, q)
}

// The clock stands still in a Run, so that a short backoff never comes up in it.
func TestShortBackoffWaits(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	require.NoError(t, q.CreateJob(nil).Retries(1).Backoff(beequeue.Fixed, time.Millisecond).Save(t.Context()))
	save(t, q, push{Target: "slow"})
	outcomes := kit.Run(t, q, func(_ context.Context, job *beequeue.Job) (any, error) {
		if job.ID == "1" {
			return nil, errOffline
		}
		<-time.After(20 * time.Millisecond)
		return nil, nil
	})
	assert.Equal(t, []string{"1 retrying", "2 succeeded"}, summary(outcomes))
	kit.Advance(time.Millisecond)
	assert.Equal(t, []string{"1 succeeded"}, summary(kit.Run(t, q, succeed)))
}

// Advancing by a delay makes the job due, whichever clock the delay was added to
// and however the times fall between milliseconds.
func TestAdvanceByDelay(t *testing.T) {
	t.Parallel()
	for name, now := range map[string]func(*beequeuetest.Kit) time.Time{
		"kit's clock":     (*beequeuetest.Kit).Now,
		"process's clock": func(*beequeuetest.Kit) time.Time { return time.Now() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kit := beequeuetest.New(t)
			q := kit.Queue("push", beequeue.Config{})
			for range 20 {
				require.NoError(t, q.CreateJob(nil).DelayUntil(now(kit).Add(time.Hour)).Save(t.Context()))
				kit.Advance(time.Hour)
				assert.Len(t, kit.Run(t, q, succeed), 1)
			}
		})
	}
}

// A time between the process's clock and the kit's: delayed, and due at once.
func TestDelayUntilBetweenTheClocks(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	kit.Advance(time.Hour)
	require.NoError(t, q.CreateJob(nil).DelayUntil(time.Now().Add(time.Minute)).Save(t.Context()))
	require.NoError(t, q.CreateJob(nil).DelayUntil(time.Now().Add(-time.Minute)).Save(t.Context()))
	counts, err := q.Counts(t.Context())
	require.NoError(t, err)
	assert.Equal(t, beequeue.Counts{Waiting: 1, Delayed: 1, NewestJob: 2}, counts)
	assert.Equal(t, []string{"2 succeeded", "1 succeeded"}, summary(kit.Run(t, q, succeed)))
}

func TestAdvanceMovesTTLs(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	client := kit.Client()
	set := client.B().Set().Key("k").Value("v").Ex(time.Minute).Build()
	require.NoError(t, client.Do(t.Context(), set).Error())
	kit.Advance(30 * time.Second)
	assert.True(t, kit.Redis().Exists("k"))
	kit.Advance(30 * time.Second)
	assert.False(t, kit.Redis().Exists("k"))
}

// A worker that waits for a delayed job hears of Advance.
func TestAdvanceWakesProcess(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	job := q.CreateJob(push{Target: "a"}).DelayUntil(kit.Now().Add(time.Hour)).Retries(1).Backoff(beequeue.Fixed, time.Hour)
	require.NoError(t, job.Save(t.Context()))

	var once sync.Once
	retrying := make(chan struct{})
	q.OnRetrying(func(*beequeue.Job, error) { close(retrying) })
	processed := make(chan error, 1)
	go func() {
		processed <- q.Process(t.Context(), 2, func(context.Context, *beequeue.Job) (any, error) {
			var err error
			once.Do(func() { err = errOffline })
			return 7, err
		})
	}()
	kit.Advance(time.Hour)
	<-retrying
	kit.Advance(time.Hour)
	n, err := beequeue.WaitFor[int](t.Context(), job)
	require.NoError(t, err)
	assert.Equal(t, 7, n)
	require.NoError(t, q.Close(t.Context()))
	require.NoError(t, <-processed)
}

func TestBubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := beequeuetest.New(t)
		q := kit.Queue("push", beequeue.Config{})
		save(t, q, push{Target: "a"})
		require.NoError(t, q.CreateJob(nil).DelayUntil(time.Now().Add(time.Hour)).Save(t.Context()))
		assert.Equal(t, []string{"1 succeeded"}, summary(kit.Run(t, q, succeed)))
		kit.Advance(time.Hour - time.Millisecond)
		assert.Empty(t, kit.Run(t, q, succeed))
		<-time.After(time.Millisecond) // the bubble's clock moves the kit's
		assert.Equal(t, []string{"2 succeeded"}, summary(kit.Run(t, q, succeed)))
		require.NoError(t, q.CreateJob(nil).Timeout(time.Minute).Save(t.Context()))
		outcomes := kit.RunAll(t, q, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		assert.Equal(t, []string{"3 failed"}, summary(outcomes))
		require.ErrorIs(t, outcomes[0].Err, beequeue.ErrTimeout)
	})
}

// In a bubble, a whole worker runs by the bubble's clock: delays, backoffs and
// timeouts come up when they should, without waiting.
func TestBubbleProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := beequeuetest.New(t)
		q := kit.Queue("push", beequeue.Config{})
		start := time.Now()
		job := q.CreateJob(nil).DelayUntil(start.Add(time.Minute)).Timeout(10*time.Second).
			Retries(2).Backoff(beequeue.Fixed, 20*time.Second)
		require.NoError(t, job.Save(t.Context()))

		var at []time.Duration
		go func() {
			err := q.Process(t.Context(), 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				at = append(at, time.Since(start).Round(time.Second))
				if len(at) < 3 {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return "sent", nil
			})
			assert.NoError(t, err)
		}()
		result, err := job.Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, `"sent"`, string(result))
		assert.Equal(t, []time.Duration{60 * time.Second, 90 * time.Second, 120 * time.Second}, at)

		// Advance works on top.
		job = q.CreateJob(nil).DelayUntil(kit.Now().Add(24 * time.Hour))
		require.NoError(t, job.Save(t.Context()))
		before := time.Now()
		synctest.Wait()
		kit.Advance(24 * time.Hour)
		_, err = job.Wait(t.Context())
		require.NoError(t, err)
		assert.Less(t, time.Since(before), time.Second)
	})
}

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

func TestEndlessJobs(t *testing.T) {
	t.Parallel()
	// 990 jobs, and one that saves itself again after each run.
	open := func(t *testing.T) (*beequeuetest.Kit, *beequeue.Queue) {
		t.Helper()
		kit := beequeuetest.New(t)
		// miniredis takes its time for large sets.
		q := kit.Queue("push", beequeue.Config{RemoveOnSuccess: true})
		jobs := make([]*beequeue.Job, 990)
		for i := range jobs {
			jobs[i] = q.CreateJob(push{Target: "once"})
		}
		require.NoError(t, q.SaveAll(t.Context(), jobs))
		save(t, q, push{Target: "again"})
		return kit, q
	}
	again := func(q *beequeue.Queue, due func() time.Time) beequeue.Handler {
		return func(ctx context.Context, job *beequeue.Job) (any, error) {
			if !strings.Contains(string(job.Data), "again") {
				return nil, nil
			}
			return nil, q.CreateJob(job.Data).DelayUntil(due()).Save(ctx)
		}
	}
	const want = `queue "push" has jobs to run after 1000 runs; the next is job "1001" with data {"target":"again"}`
	t.Run("Run", func(t *testing.T) {
		t.Parallel()
		kit, q := open(t)
		handler := again(q, func() time.Time { return time.Time{} })
		assert.Contains(t, failure(t, func(tb *fakeTB) { kit.Run(tb, q, handler) }), want)
	})
	t.Run("RunAll", func(t *testing.T) {
		t.Parallel()
		kit, q := open(t)
		handler := again(q, func() time.Time { return kit.Now().Add(time.Minute) })
		assert.Contains(t, failure(t, func(tb *fakeTB) { kit.RunAll(tb, q, handler) }), want)
	})
	t.Run("not quite", func(t *testing.T) {
		t.Parallel()
		kit, q := open(t)
		for range 9 {
			save(t, q, push{Target: "once"})
		}
		assert.Len(t, kit.Run(t, q, succeed), 1000)
	})
}

// A handler's FailNow ends the test, not only the handler.
func TestFailNowInHandler(t *testing.T) {
	t.Parallel()
	kit := beequeuetest.New(t)
	q := kit.Queue("push", beequeue.Config{})
	save(t, q, push{Target: "a"})
	message := failure(t, func(tb *fakeTB) {
		kit.Run(tb, q, func(context.Context, *beequeue.Job) (any, error) {
			require.Equal(tb, 1, 2)
			return nil, nil
		})
		tb.Errorf("Run returned")
	})
	assert.Contains(t, message, "Not equal")
	assert.Contains(t, message, `the handler of job "1" ended its goroutine`)
	assert.NotContains(t, message, "Run returned")
}

func TestKitFailures(t *testing.T) {
	t.Parallel()
	assert.Contains(t, failure(t, func(tb *fakeTB) { beequeuetest.New(tb).Queue("", beequeue.Config{}) }),
		"the queue's name is empty")
	assert.Contains(t, failure(t, func(tb *fakeTB) { beequeuetest.New(tb).Advance(-1) }),
		"the clock does not go back")
	assert.Contains(t, failure(t, func(tb *fakeTB) {
		kit := beequeuetest.New(tb)
		kit.Redis().SetError("OOM command not allowed")
		beequeuetest.Enqueued(tb, kit.Queue("push", beequeue.Config{}))
	}), "OOM command not allowed")
}

// A handler that does not return in time fails the test in its cleanup.
func TestUnfinishedHandler(t *testing.T) {
	t.Parallel()
	processed := make(chan error, 1)
	message := failure(t, func(tb *fakeTB) {
		kit := beequeuetest.New(tb)
		q := kit.Queue("push", beequeue.Config{ShutdownTimeout: time.Millisecond})
		save(t, q, push{Target: "a"})
		running := make(chan struct{})
		go func() {
			processed <- q.Process(context.Background(), 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				close(running)
				<-ctx.Done()
				return nil, context.Cause(ctx)
			})
		}()
		<-running
	})
	assert.Contains(t, message, beequeue.ErrUnfinished.Error())
	require.ErrorIs(t, <-processed, beequeue.ErrUnfinished)
}

// failure runs f as a test of its own that has to fail, and returns what it said.
func failure(t *testing.T, f func(*fakeTB)) string {
	t.Helper()
	tb := &fakeTB{TB: t}
	run := func(f func()) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f()
		}()
		<-ended
	}
	run(func() { f(tb) })
	for _, f := range slices.Backward(tb.cleanups) {
		run(f)
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	assert.True(t, tb.failed, "want a failure")
	return tb.said.String()
}

// fakeTB is a test that may fail. What it does not have is the real test's.
type fakeTB struct {
	testing.TB

	mu       sync.Mutex
	said     strings.Builder
	failed   bool
	cleanups []func()
}

func (tb *fakeTB) Logf(format string, args ...any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	fmt.Fprintf(&tb.said, format+"\n", args...)
}

func (tb *fakeTB) Errorf(format string, args ...any) {
	tb.Logf(format, args...)
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.failed = true
}

func (tb *fakeTB) FailNow() {
	tb.mu.Lock()
	tb.failed = true
	tb.mu.Unlock()
	runtime.Goexit()
}

func (tb *fakeTB) Fatalf(format string, args ...any) {
	tb.Errorf(format, args...)
	runtime.Goexit()
}

func (tb *fakeTB) Cleanup(f func()) { tb.cleanups = append(tb.cleanups, f) }

// The example is what it says it is.
func TestSignUp(t *testing.T) {
	t.Parallel()
	testSignUp(t)
}
