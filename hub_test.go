package beequeue_test

import (
	"context"
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/pulse"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A queue that nobody listens to is small: a producer may have thousands. This does not
// run beside other tests, which allocate, too.
func TestQueueIsSmall(t *testing.T) {
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	const queues = 100
	allocated := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.TotalAlloc / queues)
	}
	// What other tests have left may allocate now and then.
	grown := pulse.Calmest(20_000, allocated, func() {
		for range queues {
			q, err := beequeue.New(f.Client, f.Name(), beequeue.Config{})
			require.NoError(t, err)
			require.NoError(t, q.Close(queuetest.Bounded(t)))
		}
	})
	require.LessOrEqual(t, slices.Min(grown), int64(20_000), "bytes each")
}

// A callback that is slow costs events, which is reported, but neither the
// connection nor the end of a Wait.
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

// When nobody has listened for some seconds, the subscription is given up; who
// comes later gets a new one.
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

// A Watch that finds the end of its job by looking, and not by an event, hands on the
// events that came before it. A look and an event may be there at once, and either may be
// taken first: so it is tried some times.
func TestWatchHandsOnBeforeTheEnd(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	quiet := f.Peer(beequeue.Config{NoEvents: true})
	told := make(chan string, 10) // after the watches
	f.OnJobProgress(func(_ string, progress json.RawMessage) { told <- string(progress) })
	for range 10 {
		job := f.Save(nil)
		var events []string
		blocked, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := job.Watch(queuetest.Bounded(t), func(e beequeue.Event) {
				if events = append(events, e.Name+" "+string(e.Data)); len(events) == 1 {
					close(blocked)
					<-release
				}
			})
			ended <- err
		}()
		f.Subscribed(1)
		queuetest.Await(t, "the first event", func() bool {
			require.NoError(t, job.ReportProgress(queuetest.Bounded(t), 1))
			queuetest.Receive(t, told, "progress")
			select {
			case <-blocked:
				return true
			default: // nobody watches yet
				return false
			}
		})
		looks := time.NewTimer(watchPatience) // it looks after that
		require.NoError(t, job.ReportProgress(queuetest.Bounded(t), 2))
		require.Equal(t, "2", queuetest.Receive(t, told, "progress"))
		queuetest.Drain(t, quiet, 1, queuetest.Succeed)
		queuetest.Receive(t, looks.C, "the time of the look")
		close(release)
		require.NoError(t, queuetest.Receive(t, ended, "Watch"))
		require.Subset(t, events, []string{"progress 2"})
		require.Equal(t, "succeeded ", events[len(events)-1])
	}
}

// watchPatience is after how long a Watch looks although it has heard nothing.
const watchPatience = 200 * time.Millisecond
