package beequeue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// A diary notes what callbacks hear.
type diary struct {
	mu    sync.Mutex
	lines []string
	news  chan struct{}
}

func newDiary() *diary { return &diary{news: make(chan struct{}, 1)} }

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
	select {
	case d.news <- struct{}{}:
	default:
	}
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// await waits until the diary has that many lines, and gives them.
func (d *diary) await(t *testing.T, n int) []string {
	t.Helper()
	for lines := d.read(); ; lines = d.read() {
		if len(lines) >= n {
			return lines
		}
		receive(t, d.news, fmt.Sprintf("%d events, there are %q", n, lines))
	}
}

// listenLocally notes every local event.
func (d *diary) listenLocally(q *beequeue.Queue) {
	q.OnReady(func() { d.note("ready") })
	q.OnSucceeded(func(job *beequeue.Job, result json.RawMessage) {
		d.note("succeeded %s %s %s", job.ID, result, job.Status)
	})
	q.OnRetrying(func(job *beequeue.Job, err error) { d.note("retrying %s %v %s", job.ID, err, job.Status) })
	q.OnFailed(func(job *beequeue.Job, err error) { d.note("failed %s %v %s", job.ID, err, job.Status) })
	q.OnFailedForGood(func(job *beequeue.Job, err error) { d.note("fatal %s %v %s", job.ID, err, job.Status) })
	q.OnStalled(func(id string) { d.note("stalled %s", id) })
	q.OnRaised(func(n int) { d.note("raised %d", n) })
}

// listen notes every event of the queue, whoever caused it.
func (d *diary) listen(q *beequeue.Queue) {
	q.OnJobSucceeded(func(id string, result json.RawMessage) { d.note("succeeded %s %s", id, result) })
	q.OnJobRetrying(func(id string, err error) { d.note("retrying %s %v", id, err) })
	q.OnJobFailed(func(id string, err error) { d.note("failed %s %v", id, err) })
	q.OnJobProgress(func(id string, progress json.RawMessage) { d.note("progress %s %s", id, progress) })
}

// subscribed waits until somebody hears the queue's events.
func (f *fixture) subscribed(n int64) {
	f.t.Helper()
	await(f.t, "the subscription", func() bool { return f.subscriptions("events") >= n })
}

// Local events: what this queue value did, in order; a failure that is retried
// is a failure too, as in Bee-Queue.
func TestLocalEvents(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		d := newDiary()
		d.listenLocally(f.Queue)
		elsewhere := newDiary()
		elsewhere.listenLocally(f.peer(beequeue.Config{}))

		f.save("good", func(j *beequeue.Job) { j.SetID("a") })
		f.save("bad", func(j *beequeue.Job) { j.SetID("b").Retries(1) })
		drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == `"bad"` {
				return nil, errBroken
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
		}, d.read())

		f.lose("c", "token")
		f.check(f.Queue)
		f.check(f.Queue)
		f.save("due", func(j *beequeue.Job) { j.SetID("d").DelayUntil(time.Now().Add(time.Hour)) })
		f.must("ZADD", "delayed", "1", "d")
		drain(t, f.Queue, 1, succeed)
		require.Equal(t, []string{"stalled c", "succeeded c  succeeded", "raised 1", "succeeded d  succeeded"}, d.read()[6:])
		require.Empty(t, elsewhere.read(), "another value of the queue did nothing")
	})
}

// OnJob callbacks hear of all jobs, in order, also where no worker runs.
func TestJobEvents(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		other := f.peer(beequeue.Config{})
		here, there := newDiary(), newDiary()
		here.listen(f.Queue)
		there.listen(other)
		f.subscribed(2)

		f.save("good", func(j *beequeue.Job) { j.SetID("a") })
		f.save("bad", func(j *beequeue.Job) { j.SetID("b").Retries(1) })
		drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
			if err := job.ReportProgress(ctx, map[string]int{"done": 50}); err != nil {
				return nil, err
			}
			if string(job.Data) == `"bad"` {
				return nil, errBroken
			}
			return []int{1}, nil
		})
		want := []string{
			`progress a {"done":50}`, "succeeded a [1]",
			`progress b {"done":50}`, `retrying b job "b" failed: broken`,
			`progress b {"done":50}`, `failed b job "b" failed: broken`,
		}
		require.Equal(t, want, here.await(t, len(want)))
		require.Equal(t, want, there.await(t, len(want)))

		f.save("nothing", func(j *beequeue.Job) { j.SetID("c") })
		drain(t, f.Queue, 1, succeed)
		require.Equal(t, "succeeded c ", there.await(t, len(want)+1)[len(want)], "no result")
	})
}

// The bytes of an event are what Node reads.
func TestEventsOnTheWire(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	messages := make(chan string, 10)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- f.client.Receive(ctx, f.client.B().Subscribe().Channel(f.KeyPrefix()+"events").Build(),
			func(m rueidis.PubSubMessage) { messages <- m.Message })
	}()
	f.subscribed(1)
	f.save("good", func(j *beequeue.Job) { j.SetID(`"odd" id`) })
	f.save("bad", func(j *beequeue.Job) { j.SetID("b").Retries(1) })
	drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
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
		require.Equal(t, want, receive(t, messages, "the event"))
	}
	cancel()
	require.ErrorIs(t, receive(t, ended, "the end of the subscription"), context.Canceled)
	require.NoError(t, f.client.Do(bounded(t), f.client.B().Unsubscribe().Channel(f.KeyPrefix()+"events").Build()).Error())
}

// With NoEvents nothing is published; local callbacks are called all the same.
func TestNoEvents(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{NoEvents: true})
	local, remote := newDiary(), newDiary()
	local.listenLocally(f.Queue)
	remote.listen(f.Queue)
	f.subscribed(1)
	f.save(1, func(j *beequeue.Job) { j.Retries(1) })
	f.plant("bad", "nonsense")
	drain(t, f.Queue, 1, fail)
	f.expectError(as[*beequeue.RecordError])
	require.Len(t, local.read(), 5)
	// This one arrives after whatever had been published before.
	f.must("PUBLISH", "events", `{"id":"end","event":"succeeded"}`)
	require.Equal(t, []string{"succeeded end "}, remote.await(t, 1))
}

func TestReportProgress(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		job := f.save(1)
		require.ErrorContains(t, job.ReportProgress(bounded(t), nil), "progress is empty")
		require.ErrorContains(t, job.ReportProgress(bounded(t), (*int)(nil)), "progress is empty")
		require.ErrorContains(t, job.ReportProgress(bounded(t), func() {}), "report progress of job")
		require.Equal(t, "0", string(job.Progress), "an error changes nothing")

		d := newDiary()
		d.listen(f.Queue)
		f.subscribed(1)
		for _, progress := range []any{0, 99.5, "half way", []int{1, 2}, false} {
			require.NoError(t, job.ReportProgress(bounded(t), progress))
		}
		require.Equal(t, []string{"progress 1 0", "progress 1 99.5", `progress 1 "half way"`, "progress 1 [1,2]", "progress 1 false"}, d.await(t, 5))
		require.Equal(t, "0", string(f.lookup(job.ID).Progress), "stored only when a run ends")
	})
}

// A callback that panics does not hurt: OnError gets it, the others and the
// worker go on.
func TestCallbackPanics(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	f.faulty = true // several jobs, the same panics
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
	d := newDiary()
	d.listenLocally(f.Queue)
	f.subscribed(1)

	f.save("good")
	f.save("bad", func(j *beequeue.Job) { j.Retries(1) })
	f.save("due", func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)) })
	f.must("ZADD", "delayed", "1", "3")
	f.lose("lost", "")
	f.check(f.Queue)
	f.check(f.Queue)
	drain(t, f.Queue, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == `"bad"` {
			return nil, errBroken
		}
		return nil, job.ReportProgress(ctx, 1)
	})
	for _, name := range names {
		err := f.catch(func(err error) bool {
			var p *beequeue.PanicError
			return errors.As(err, &p) && fmt.Sprint(p.Value) == name
		})
		require.ErrorContains(t, err, name+" callback", "the error says which callback it was")
		var p *beequeue.PanicError
		require.ErrorAs(t, err, &p)
		require.Contains(t, p.Stack, "events_test.go")
	}
	require.Len(t, d.read(), 10, "the callbacks beside the panicking ones were called")
}

// lockedBuffer is a log.
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

// Without OnError, errors go to the log, at most one a second, and the next one
// says how many were left out.
func TestLogger(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	var log lockedBuffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	q, err := beequeue.New(f.client, f.Name(), beequeue.Config{Logger: logger})
	require.NoError(t, err)
	t.Cleanup(func() { f.close(q) })
	bad := func(n int) {
		for i := range n {
			f.plant("bad"+itoa(i), "nonsense")
		}
		require.NoError(t, q.Drain(bounded(t), 1, succeed))
		for i := range n {
			require.NoError(t, f.RemoveJob(bounded(t), "bad"+itoa(i)))
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
	await(t, "the next line", func() bool { bad(1); return len(log.lines()) > before })
	total := len(log.lines())
	for _, text := range log.lines()[1:] {
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		total += line.NotLogged
	}
	require.GreaterOrEqual(t, total, 21, "none is unaccounted for")
}

// A panic of OnError itself goes to the log, not in circles.
func TestOnErrorPanics(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	var log lockedBuffer
	q, err := beequeue.New(f.client, f.Name(), beequeue.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { f.close(q) })
	var calls atomic.Int32
	q.OnError(func(error) { calls.Add(1); panic("even here") })
	q.OnError(func(error) { calls.Add(1) })
	f.plant("bad", "nonsense")
	require.NoError(t, q.Drain(bounded(t), 1, succeed))
	f.close(q) // OnError was called before it returns
	require.EqualValues(t, 2, calls.Load())
	require.Contains(t, log.lines()[0], "even here")
}
