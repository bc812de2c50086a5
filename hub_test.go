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
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A queue that nobody listens to is small: a producer may have thousands. This does not
// run beside other tests, which allocate, too.
func TestQueueIsSmall(t *testing.T) {
	f := open(t, mini, beequeue.Config{})
	const queues = 100
	allocated := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.TotalAlloc / queues)
	}
	// What other tests have left may allocate now and then.
	grown := queuetest.Calmest(20_000, allocated, func() {
		for range queues {
			q, err := beequeue.New(f.client, f.Name(), beequeue.Config{})
			require.NoError(t, err)
			require.NoError(t, q.Close(bounded(t)))
		}
	})
	require.LessOrEqual(t, slices.Min(grown), int64(20_000), "bytes each")
}

// A callback that is slow costs events, which is reported, but neither the
// connection nor the end of a Wait.
func TestSlowCallback(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
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
		job := f.save(1)
		ended := make(chan error, 1)
		go func() {
			_, err := job.Wait(context.Background())
			ended <- err
		}()
		f.subscribed(1)
		require.NoError(t, job.ReportProgress(bounded(t), 1))
		receive(t, blocked, "the callback")

		const flood = 6000 // more than the queue keeps for those who are slow
		commands := make(rueidis.Commands, flood)
		for i := range commands {
			commands[i] = f.client.B().Arbitrary("PUBLISH").Keys(f.KeyPrefix() + "events").
				Args(`{"id":"x","event":"progress","data":1}`).Build()
		}
		for _, reply := range f.client.DoMulti(bounded(t), commands...) {
			require.NoError(t, reply.Error())
		}
		drain(t, f.Queue, 1, succeed)                 // its event is lost, too
		require.NoError(t, receive(t, ended, "Wait")) // which looks by itself
		close(release)
		f.expectError(func(err error) bool { return strings.Contains(err.Error(), "events were dropped") })
		require.NoError(t, f.Close(bounded(t)))
		require.Less(t, heard, flood)
	})
}

// When nobody has listened for some seconds, the subscription is given up; who
// comes later gets a new one.
func TestSubscriptionIsGivenUp(t *testing.T) {
	t.Parallel()
	onReal(t, func(t *testing.T, s *server) {
		f := open(t, s, beequeue.Config{})
		for _, last := range []bool{false, true} {
			job := f.save(1)
			ended := make(chan error, 1)
			go func() {
				_, err := job.Wait(context.Background())
				ended <- err
			}()
			f.subscribed(1)
			drain(t, f.Queue, 1, succeed)
			require.NoError(t, receive(t, ended, "Wait"))
			require.EqualValues(t, 1, f.subscriptions("events"), "it is kept a while")
			if last {
				return
			}
			await(t, "the subscription is given up", func() bool { return f.subscriptions("events") == 0 })
		}
	})
}

// A Watch that finds the end of its job by looking, and not by an event, hands on the
// events that came before it. A look and an event may be there at once, and either may be
// taken first: so it is tried some times.
func TestWatchHandsOnBeforeTheEnd(t *testing.T) {
	t.Parallel()
	f := open(t, mini, beequeue.Config{})
	quiet := f.peer(beequeue.Config{NoEvents: true})
	told := make(chan string, 10) // after the watches
	f.OnJobProgress(func(_ string, progress json.RawMessage) { told <- string(progress) })
	for range 10 {
		job := f.save(nil)
		var events []string
		blocked, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := job.Watch(bounded(t), func(e beequeue.Event) {
				if events = append(events, e.Name+" "+string(e.Data)); len(events) == 1 {
					close(blocked)
					<-release
				}
			})
			ended <- err
		}()
		f.subscribed(1)
		await(t, "the first event", func() bool {
			require.NoError(t, job.ReportProgress(bounded(t), 1))
			receive(t, told, "progress")
			select {
			case <-blocked:
				return true
			default: // nobody watches yet
				return false
			}
		})
		looks := time.NewTimer(watchPatience) // it looks after that
		require.NoError(t, job.ReportProgress(bounded(t), 2))
		require.Equal(t, "2", receive(t, told, "progress"))
		drain(t, quiet, 1, succeed)
		receive(t, looks.C, "the time of the look")
		close(release)
		require.NoError(t, receive(t, ended, "Watch"))
		require.Subset(t, events, []string{"progress 2"})
		require.Equal(t, "succeeded ", events[len(events)-1])
	}
}

// watchPatience is after how long a Watch looks although it has heard nothing.
const watchPatience = 200 * time.Millisecond
