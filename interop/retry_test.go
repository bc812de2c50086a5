package interop_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// linear is a backoff strategy of the user's own, as peer.js has it: 5 ms more
// each time.
func linear(job *beequeue.Job) time.Duration {
	delay := job.Options.Backoff.Delay
	job.Options.Backoff.Delay += 5 * time.Millisecond
	return delay
}

func withLinear(c *beequeue.Config) {
	c.Backoffs = map[beequeue.Strategy]beequeue.BackoffFunc{"linear": linear}
}

// backoffs are the ways to wait before a retry, and what becomes of the delay in
// the record by two of them.
func backoffs() []struct {
	name    string
	backoff *nodeBackoff
	waits   [2]int64 // ms, at least
	left    int64    // in the record
} {
	return []struct {
		name    string
		backoff *nodeBackoff
		waits   [2]int64
		left    int64
	}{
		{"none", nil, [2]int64{0, 0}, 0},
		{"immediate", &nodeBackoff{"immediate", 0}, [2]int64{0, 0}, 0},
		{"fixed", &nodeBackoff{"fixed", 30}, [2]int64{30, 30}, 30},
		{"exponential", &nodeBackoff{"exponential", 20}, [2]int64{20, 40}, 80},
		{"linear", &nodeBackoff{"linear", 20}, [2]int64{20, 25}, 30},
	}
}

// checkFailed asserts what the record of a job says that failed three times.
func checkFailed(t *testing.T, job *readJob, left int64) {
	t.Helper()
	require.NotNil(t, job)
	assert.Equal(t, "failed", job.Status)
	assert.Zero(t, job.Options.Retries)
	if left > 0 {
		require.NotNil(t, job.Options.Backoff)
		assert.Equal(t, left, job.Options.Backoff.Delay)
	}
	require.Len(t, job.Options.Stacktraces, 3)
	for i, trace := range job.Options.Stacktraces {
		assert.Contains(t, trace, fmt.Sprintf("failed %d", 3-i), "newest first")
	}
}

func TestGoFailsNodesJob(t *testing.T) {
	w := newWorld(t)
	for _, c := range backoffs() {
		t.Run(c.name, func(t *testing.T) {
			w.eachLayout(t, "fail-"+c.name, func(t *testing.T, s *site) {
				g, n := s.goQueue(t, withLinear), s.nodeQueue(t, nil)
				id := n.save(t, nodeJob{Retries: 2, Backoff: c.backoff})
				var mu sync.Mutex
				var began, ended []time.Time
				work := g.start(t, 1, func(context.Context, *beequeue.Job) (any, error) {
					mu.Lock()
					defer mu.Unlock()
					began = append(began, time.Now())
					defer func() { ended = append(ended, time.Now()) }()
					return nil, fmt.Errorf("failed %d", len(began))
				})
				n.await(t, "job", "failed", id)
				work.stop()

				assert.Equal(t, []string{`retrying "failed 1"`, `retrying "failed 2"`, `failed "failed 3"`}, n.history("job", id))
				assert.Equal(t, []string{`job retrying "failed 1"`, `job retrying "failed 2"`, `job failed "failed 3"`}, n.history("queue", id))
				require.Len(t, began, 3)
				for i, wait := range c.waits {
					// Due times are whole milliseconds, cut off.
					assert.GreaterOrEqual(t, began[i+1].Sub(ended[i])+time.Millisecond, time.Duration(wait)*time.Millisecond)
				}
				checkFailed(t, n.job(t, id), c.left)
				assert.Equal(t, []string{"failed"}, s.places(t)[id])
			})
		})
	}
}

func TestNodeFailsGosJob(t *testing.T) {
	w := newWorld(t)
	for _, c := range backoffs() {
		t.Run(c.name, func(t *testing.T) {
			w.eachLayout(t, "fail-"+c.name, func(t *testing.T, s *site) {
				g, n := s.goQueue(t, withLinear), s.nodeQueue(t, settings{"activateDelayedJobs": true, "delayedDebounce": 1})
				job := g.CreateJob(nil).Retries(2)
				if c.backoff != nil {
					job.Backoff(beequeue.Strategy(c.backoff.Strategy), time.Duration(c.backoff.Delay)*time.Millisecond)
				}
				save(t, job)
				heard := make(chan beequeue.Event, 10)
				done := make(chan error, 1)
				go func() {
					_, err := job.Watch(t.Context(), func(e beequeue.Event) { heard <- e })
					done <- err
				}()
				s.awaitSubscribers(t, "events", 2)
				n.process(t, 1, "failTimes", map[string]any{"times": 3})

				for i, name := range []string{"retrying", "retrying", "failed"} {
					e := receive(t, heard, "event %d", i)
					assert.Equal(t, name, e.Name)
					var failed *beequeue.FailedError
					require.ErrorAs(t, e.Err, &failed)
					assert.Equal(t, fmt.Sprintf("failed %d", i+1), failed.Message)
				}
				require.ErrorContains(t, receive(t, done, "the end of Watch"), "failed 3")
				checkFailed(t, n.job(t, job.ID), c.left)
				got := g.get(t, job.ID)
				assert.Equal(t, beequeue.StatusFailed, got.Status)
				assert.Len(t, got.Options.Stacktraces, 3)
				assert.Contains(t, got.Options.Stacktraces[0], "Error: failed 3\n    at ")
				if c.left > 0 {
					assert.Equal(t, time.Duration(c.left)*time.Millisecond, got.Options.Backoff.Delay)
				}
			})
		})
	}
}

// A job fails in one language, waits in delayed, and is run in the other.
func TestRetryCrosses(t *testing.T) {
	w := newWorld(t)
	t.Run("from Go to Node", func(t *testing.T) {
		w.eachLayout(t, "cross-to-node", func(t *testing.T, s *site) {
			g := s.goQueue(t)
			// This queue runs nothing; it moves delayed jobs to waiting.
			raiser := s.nodeQueue(t, settings{"activateDelayedJobs": true, "delayedDebounce": 1})
			id := raiser.save(t, nodeJob{Data: "x", Retries: 2, Backoff: &nodeBackoff{"fixed", 4000}})
			require.NoError(t, g.Drain(t.Context(), 1, func(context.Context, *beequeue.Job) (any, error) {
				return nil, errors.New("not yet")
			}))
			raiser.await(t, "job", "retrying", id)
			assert.Equal(t, "1", string(raiser.awaitSome(t, 1, "queue", "raised jobs", "")[0].Data))

			n := s.nodeQueue(t, nil)
			n.process(t, 1, "failTimes", map[string]any{"times": 1})
			assert.JSONEq(t, `"x"`, string(n.await(t, "queue", "job succeeded", id).Data))
			assert.Equal(t, []any{"not yet"}, n.job(t, id).Options.Stacktraces)
			assert.Equal(t, 1, g.get(t, id).Options.Retries)
		})
	})
	t.Run("from Node to Go", func(t *testing.T) {
		w.eachLayout(t, "cross-to-go", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			job := save(t, g.CreateJob("x").Retries(2).Backoff(beequeue.Fixed, 300*time.Millisecond))
			n.process(t, 1, "fail", map[string]any{"message": "not yet"})
			n.await(t, "queue", "job retrying", job.ID)
			s.awaitPlace(t, job.ID, "delayed") // Node raises only with activateDelayedJobs
			n.close(t)

			raised := make(chan int, 10)
			g.OnRaised(func(n int) { raised <- n })
			done := wait(t, job)
			g.start(t, 1, echo)
			got := receive(t, done, "the result")
			require.NoError(t, got.err)
			assert.JSONEq(t, `"x"`, got.result)
			assert.Equal(t, 1, receive(t, raised, "a raised job"))
			read := g.get(t, job.ID)
			assert.Equal(t, 1, read.Options.Retries)
			require.Len(t, read.Options.Stacktraces, 1)
			assert.Contains(t, read.Options.Stacktraces[0], "Error: not yet\n    at ")
		})
	})
}

// A delayed job that one side saves is raised by the other when it is due: the
// message on earlierDelayed is heard.
func TestDelayUntil(t *testing.T) {
	const delay = 400 * time.Millisecond
	w := newWorld(t)
	t.Run("Node saves, Go raises", func(t *testing.T) {
		w.eachLayout(t, "delay-go", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			ran := make(chan time.Time, 1)
			g.start(t, 1, func(context.Context, *beequeue.Job) (any, error) {
				ran <- time.Now()
				return nil, nil
			})
			s.awaitSubscribers(t, "earlierDelayed", 1)
			// Without the message, Go looks every 5 s: it would be late each time,
			// which a busy machine alone is not.
			late := time.Duration(math.MaxInt64)
			for try := 0; try < 3 && late > 4*time.Second; try++ {
				due := time.UnixMilli(time.Now().Add(delay).UnixMilli())
				id := n.save(t, nodeJob{DelayUntil: due.UnixMilli()})
				assert.Equal(t, due.UnixMilli(), g.get(t, id).Options.DelayUntil.UnixMilli())
				late = receive(t, ran, "the run").Sub(due)
				assert.GreaterOrEqual(t, late, time.Duration(0))
				n.await(t, "job", "succeeded", id)
			}
			assert.Less(t, late, 4*time.Second)
		})
	})
	t.Run("Go saves, Node raises", func(t *testing.T) {
		w.eachLayout(t, "delay-node", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, settings{"activateDelayedJobs": true, "delayedDebounce": 1})
			n.process(t, 1, "echo", nil)
			due := time.UnixMilli(time.Now().Add(delay).UnixMilli())
			job := save(t, g.CreateJob("late").DelayUntil(due))
			assert.Equal(t, due.UnixMilli(), n.job(t, job.ID).Options.Delay)
			n.await(t, "handler", "start", job.ID)
			assert.False(t, time.Now().Before(due))
			result, err := job.Wait(t.Context())
			require.NoError(t, err)
			if result != nil { // nil: it was done before Wait listened
				assert.JSONEq(t, `"late"`, string(result))
			}
		})
	})
}

func TestTimeout(t *testing.T) {
	w := newWorld(t)
	t.Run("Go runs", func(t *testing.T) {
		w.eachLayout(t, "timeout-go", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			id := n.save(t, nodeJob{Timeout: 30})
			g.start(t, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			assert.Equal(t, "job timed out after 30ms", n.await(t, "job", "failed", id).text())
		})
	})
	t.Run("Node runs", func(t *testing.T) {
		w.eachLayout(t, "timeout-node", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			job := save(t, g.CreateJob(nil).Timeout(30*time.Millisecond))
			n.process(t, 1, "hang", nil)
			assert.Equal(t, "Job 1 timed out (30 ms)", receive(t, wait(t, job), "the failure").message(t))
		})
	})
}

// What cannot be retried here fails for good, and the other side hears why.
func TestFailuresWithoutRetry(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "fatal", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		unknown := n.save(t, nodeJob{Data: "unknown", Retries: 3, Backoff: &nodeBackoff{"linear", 10}})
		final := n.save(t, nodeJob{Data: "final", Retries: 3})
		panics := n.save(t, nodeJob{Data: "panic"})
		require.NoError(t, g.Drain(t.Context(), 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			switch string(job.Data) {
			case `"panic"`:
				panic("help")
			case `"final"`:
				return nil, fmt.Errorf("no use: %w", beequeue.ErrNoRetry)
			}
			return nil, errors.New("failed")
		}))
		assert.Equal(t, `failed (not retried: unknown backoff strategy "linear")`, n.await(t, "job", "failed", unknown).text())
		assert.Equal(t, "no use: not retryable", n.await(t, "job", "failed", final).text())
		assert.Equal(t, "panic: help", n.await(t, "job", "failed", panics).text())
		assert.Equal(t, 3, n.job(t, unknown).Options.Retries)
		trace, ok := n.job(t, panics).Options.Stacktraces[0].(string)
		require.True(t, ok)
		assert.Contains(t, trace, "retry_test.go")
	})
}

// Node stores whatever was thrown.
func TestNodeThrowsNoError(t *testing.T) {
	w := newWorld(t)
	for name, value := range map[string]any{"text": "plain text", "object": map[string]any{"code": 7}} {
		t.Run(name, func(t *testing.T) {
			w.eachLayout(t, "throw-"+name, func(t *testing.T, s *site) {
				g, n := s.goQueue(t), s.nodeQueue(t, nil)
				job := save(t, g.CreateJob(nil))
				n.process(t, 1, "throwValue", map[string]any{"value": value})
				s.awaitPlace(t, job.ID, "failed")
				want, ok := value.(string)
				if !ok {
					want = text(t, value)
				}
				assert.Equal(t, want, receive(t, wait(t, job), "the failure").message(t))
				assert.Equal(t, []string{want}, g.get(t, job.ID).Options.Stacktraces)

				// Another failure, in Go, goes before it.
				n.close(t)
				require.NoError(t, g.get(t, job.ID).Retry(t.Context()))
				require.NoError(t, g.Drain(t.Context(), 1, func(context.Context, *beequeue.Job) (any, error) {
					return nil, errors.New("again")
				}))
				assert.Equal(t, []string{"again", want}, g.get(t, job.ID).Options.Stacktraces)
			})
		})
	}
}
