package beequeue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// Local events tell what this queue value did, in order. A failure that is retried is a
// failure too, as in Bee-Queue.
func TestLocalEvents(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		d := queuetest.NewDiary()
		d.ListenLocally(f.Queue)
		elsewhere := queuetest.NewDiary()
		elsewhere.ListenLocally(f.Peer(beequeue.Config{}))

		f.Save("good", func(j *beequeue.Job) { j.SetID("a") })
		f.Save("bad", func(j *beequeue.Job) { j.SetID("b").Retries(1) })
		queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == `"bad"` {
				return nil, queuetest.ErrBroken
			}
			return "r", nil
		})
		require.Equal(t, []string{
			"ready",
			`succeeded a "r" succeeded`,
			"retrying b broken retrying",
			"failed b broken retrying",
			"failed b broken failed",
			"fatal b broken failed",
		}, d.Read())

		f.Lose("c", "token")
		f.StallCheck(f.Queue)
		f.StallCheck(f.Queue)
		f.Save("due", func(j *beequeue.Job) { j.SetID("d").DelayUntil(time.Now().Add(time.Hour)) })
		f.Must("ZADD", "delayed", "1", "d")
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.Equal(t, []string{"stalled c", "succeeded c  succeeded", "raised 1", "succeeded d  succeeded"}, d.Read()[6:])
		require.Empty(t, elsewhere.Read(), "another value of the queue did nothing")
	})
}

// OnJob callbacks hear of all jobs, in order, also where no worker runs.
func TestJobEvents(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		other := f.Peer(beequeue.Config{})
		here, there := queuetest.NewDiary(), queuetest.NewDiary()
		here.Listen(f.Queue)
		there.Listen(other)
		f.Subscribed(2)

		f.Save("good", func(j *beequeue.Job) { j.SetID("a") })
		f.Save("bad", func(j *beequeue.Job) { j.SetID("b").Retries(1) })
		queuetest.Drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
			if err := job.ReportProgress(ctx, map[string]int{"done": 50}); err != nil {
				return nil, err
			}
			if string(job.Data) == `"bad"` {
				return nil, queuetest.ErrBroken
			}
			return []int{1}, nil
		})
		want := []string{
			`progress a {"done":50}`, "succeeded a [1]",
			`progress b {"done":50}`, `retrying b job "b" failed: broken`,
			`progress b {"done":50}`, `failed b job "b" failed: broken`,
		}
		require.Equal(t, want, here.Await(t, len(want)))
		require.Equal(t, want, there.Await(t, len(want)))

		f.Save("nothing", func(j *beequeue.Job) { j.SetID("c") })
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.Equal(t, "succeeded c ", there.Await(t, len(want)+1)[len(want)], "no result")
	})
}

// The bytes of an event are what Node reads.
func TestEventsOnTheWire(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	messages := make(chan string, 10)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- f.Client.Receive(ctx, f.Client.B().Subscribe().Channel(f.KeyPrefix()+"events").Build(),
			func(m rueidis.PubSubMessage) { messages <- m.Message })
	}()
	f.Subscribed(1)
	f.Save("good", func(j *beequeue.Job) { j.SetID(`"odd" id`) })
	f.Save("bad", func(j *beequeue.Job) { j.SetID("b").Retries(1) })
	queuetest.Drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == `"bad"` {
			return nil, errors.New("a \"quoted\"\nerror")
		}
		return nil, job.ReportProgress(ctx, 3)
	})
	for _, want := range []string{
		`{"id":"\"odd\" id","event":"progress","data":3}`,
		`{"id":"\"odd\" id","event":"succeeded"}`,
		`{"id":"b","event":"retrying","data":"a \"quoted\"\nerror"}`,
		`{"id":"b","event":"failed","data":"a \"quoted\"\nerror"}`,
	} {
		require.Equal(t, want, queuetest.Receive(t, messages, "the event"))
	}
	cancel()
	require.ErrorIs(t, queuetest.Receive(t, ended, "the end of the subscription"), context.Canceled)
	require.NoError(t, f.Client.Do(queuetest.Bounded(t), f.Client.B().Unsubscribe().Channel(f.KeyPrefix()+"events").Build()).Error())
}

// With NoEvents nothing is published, and local callbacks are called nevertheless.
func TestNoEvents(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{NoEvents: true})
	local, remote := queuetest.NewDiary(), queuetest.NewDiary()
	local.ListenLocally(f.Queue)
	remote.Listen(f.Queue)
	f.Subscribed(1)
	f.Save(1, func(j *beequeue.Job) { j.Retries(1) })
	f.Plant("bad", "nonsense")
	queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
	f.ExpectError(queuetest.As[*beequeue.RecordError])
	require.Len(t, local.Read(), 5)
	// This event arrives after whatever was published before.
	f.Must("PUBLISH", "events", `{"id":"end","event":"succeeded"}`)
	require.Equal(t, []string{"succeeded end "}, remote.Await(t, 1))
}

func TestReportProgress(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1)
		require.ErrorContains(t, job.ReportProgress(queuetest.Bounded(t), nil), "progress is empty")
		require.ErrorContains(t, job.ReportProgress(queuetest.Bounded(t), (*int)(nil)), "progress is empty")
		require.ErrorContains(t, job.ReportProgress(queuetest.Bounded(t), func() {}), "report progress of job")
		require.Equal(t, "0", string(job.Progress), "an error changes nothing")

		d := queuetest.NewDiary()
		d.Listen(f.Queue)
		f.Subscribed(1)
		for _, progress := range []any{0, 99.5, "half way", []int{1, 2}, false} {
			require.NoError(t, job.ReportProgress(queuetest.Bounded(t), progress))
		}
		require.Equal(t, []string{"progress 1 0", "progress 1 99.5", `progress 1 "half way"`, "progress 1 [1,2]", "progress 1 false"}, d.Await(t, 5))
		require.Equal(t, "0", string(f.Lookup(job.ID).Progress), "stored only when a run ends")
	})
}

// OnError gets the panic of a callback. The other callbacks and the worker go on.
func TestCallbackPanics(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	f.Faulty = true // several jobs, the same panics
	names := []string{"OnReady", "OnSucceeded", "OnFailed", "OnRetrying", "OnFailedForGood", "OnStalled", "OnRaised", "OnJobSucceeded", "OnJobFailed", "OnJobRetrying", "OnJobProgress"}
	f.OnReady(func() { panic("OnReady") })
	f.OnSucceeded(func(*beequeue.Job, json.RawMessage) { panic("OnSucceeded") })
	f.OnFailed(func(*beequeue.Job, error) { panic("OnFailed") })
	f.OnRetrying(func(*beequeue.Job, error) { panic("OnRetrying") })
	f.OnFailedForGood(func(*beequeue.Job, error) { panic("OnFailedForGood") })
	f.OnStalled(func(string) { panic("OnStalled") })
	f.OnRaised(func(int) { panic("OnRaised") })
	f.OnJobSucceeded(func(string, json.RawMessage) { panic("OnJobSucceeded") })
	f.OnJobFailed(func(string, error) { panic("OnJobFailed") })
	f.OnJobRetrying(func(string, error) { panic("OnJobRetrying") })
	f.OnJobProgress(func(string, json.RawMessage) { panic(errors.New("OnJobProgress")) })
	d := queuetest.NewDiary()
	d.ListenLocally(f.Queue)
	f.Subscribed(1)

	f.Save("good")
	f.Save("bad", func(j *beequeue.Job) { j.Retries(1) })
	f.Save("due", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
	f.Must("ZADD", "delayed", "1", "3")
	f.Lose("lost", "")
	f.StallCheck(f.Queue)
	f.StallCheck(f.Queue)
	queuetest.Drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == `"bad"` {
			return nil, queuetest.ErrBroken
		}
		return nil, job.ReportProgress(ctx, 1)
	})
	for _, name := range names {
		err := f.Catch(func(err error) bool {
			var p *beequeue.PanicError
			return errors.As(err, &p) && fmt.Sprint(p.Value) == name
		})
		require.ErrorContains(t, err, name+" callback", "the error says which callback it was")
		var p *beequeue.PanicError
		require.ErrorAs(t, err, &p)
		require.Contains(t, p.Stack, "events_test.go")
	}
	require.Len(t, d.Read(), 10, "the callbacks beside the panicking ones were called")
}

// lockedBuffer is a log for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Split(strings.TrimSuffix(b.b.String(), "\n"), "\n")
}

// Without OnError, errors go to the log, at most one a second. The next line says how many
// were left out.
func TestLogger(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	var log lockedBuffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	q, err := beequeue.New(f.Client, f.Name(), beequeue.Config{Logger: logger})
	require.NoError(t, err)
	t.Cleanup(func() { f.CloseQueue(q) })
	bad := func(n int) {
		for i := range n {
			f.Plant("bad"+strconv.Itoa(i), "nonsense")
		}
		require.NoError(t, q.Drain(queuetest.Bounded(t), 1, queuetest.Succeed))
		for i := range n {
			require.NoError(t, f.RemoveJob(queuetest.Bounded(t), "bad"+strconv.Itoa(i)))
		}
	}
	began := time.Now()
	bad(20)
	if time.Since(began) < time.Second {
		require.Len(t, log.lines(), 1, "one a second")
	}
	var line struct {
		Level, Msg, Queue, Error string
		NotLogged                int `json:"not logged"`
	}
	require.NoError(t, json.Unmarshal([]byte(log.lines()[0]), &line))
	require.Equal(t, "ERROR", line.Level)
	require.Equal(t, "beequeue", line.Msg)
	require.Equal(t, f.Name(), line.Queue)
	require.Contains(t, line.Error, `job "bad0" has a malformed record`)
	require.Zero(t, line.NotLogged)

	before := len(log.lines())
	queuetest.Await(t, "the next line", func() bool { bad(1); return len(log.lines()) > before })
	total := len(log.lines())
	for _, text := range log.lines()[1:] {
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		total += line.NotLogged
	}
	require.GreaterOrEqual(t, total, 21, "none is unaccounted for")
}

// A panic of OnError itself goes to the log, and not to OnError again.
func TestOnErrorPanics(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	var log lockedBuffer
	q, err := beequeue.New(f.Client, f.Name(), beequeue.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { f.CloseQueue(q) })
	var calls atomic.Int32
	q.OnError(func(error) { calls.Add(1); panic("even here") })
	q.OnError(func(error) { calls.Add(1) })
	f.Plant("bad", "nonsense")
	require.NoError(t, q.Drain(queuetest.Bounded(t), 1, queuetest.Succeed))
	f.CloseQueue(q) // OnError was called before it returns
	require.EqualValues(t, 2, calls.Load())
	require.Contains(t, log.lines()[0], "even here")
}

// A slow callback loses events, which is reported. It loses neither the connection nor the
// end of a Wait.
func TestSlowCallback(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		blocked, release := make(chan struct{}), make(chan struct{})
		first := true
		heard := 0
		f.OnJobProgress(func(string, json.RawMessage) {
			heard++
			if first {
				first = false
				close(blocked)
				<-release
			}
		})
		job := f.Save(1)
		ended := make(chan error, 1)
		go func() {
			_, err := job.Wait(context.Background())
			ended <- err
		}()
		f.Subscribed(1)
		require.NoError(t, job.ReportProgress(queuetest.Bounded(t), 1))
		queuetest.Receive(t, blocked, "the callback")

		const flood = 6000 // more than the queue keeps for those who are slow
		commands := make(rueidis.Commands, flood)
		for i := range commands {
			commands[i] = f.Client.B().Arbitrary("PUBLISH").Keys(f.KeyPrefix() + "events").
				Args(`{"id":"x","event":"progress","data":1}`).Build()
		}
		for _, reply := range f.Client.DoMulti(queuetest.Bounded(t), commands...) {
			require.NoError(t, reply.Error())
		}
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)       // its event is lost, too
		require.NoError(t, queuetest.Receive(t, ended, "Wait")) // which looks by itself
		close(release)
		f.ExpectError(func(err error) bool { return strings.Contains(err.Error(), "events were dropped") })
		require.NoError(t, f.Close(queuetest.Bounded(t)))
		require.Less(t, heard, flood)
	})
}

// When nobody has listened for some seconds, the subscription is given up. A later listener
// gets a new subscription.
func TestSubscriptionIsGivenUp(t *testing.T) {
	t.Parallel()
	queuetest.OnReal(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		for _, last := range []bool{false, true} {
			job := f.Save(1)
			ended := make(chan error, 1)
			go func() {
				_, err := job.Wait(context.Background())
				ended <- err
			}()
			f.Subscribed(1)
			queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
			require.NoError(t, queuetest.Receive(t, ended, "Wait"))
			require.EqualValues(t, 1, f.Subscriptions("events"), "it is kept a while")
			if last {
				return
			}
			queuetest.Await(t, "the subscription is given up", func() bool { return f.Subscriptions("events") == 0 })
		}
	})
}
