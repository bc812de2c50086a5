package peer

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fake is a queue in memory.
type fake struct {
	jobs    chan []byte
	workers sync.WaitGroup
	working atomic.Bool
	closed  atomic.Bool
}

func (f *fake) Save(_ context.Context, payload []byte) error {
	f.jobs <- payload
	return nil
}

func (f *fake) Bulk(ctx context.Context, payload []byte, n int) error {
	for range n {
		if err := f.Save(ctx, payload); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Work(ctx context.Context, concurrency int, handle func(), done func(n int)) (func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	f.working.Store(true)
	for range concurrency {
		f.workers.Go(func() {
			for {
				select {
				case <-f.jobs:
					handle()
					done(1)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return func() {
		cancel()
		f.workers.Wait()
		f.working.Store(false)
	}, nil
}

func (f *fake) Request(ctx context.Context, payload []byte) error { return f.Save(ctx, payload) }
func (f *fake) Close()                                            { f.closed.Store(true) }

func TestTasks(t *testing.T) {
	for _, task := range []string{"save", "bulk", "drain", "mixed", "latency"} {
		t.Run(task, func(t *testing.T) {
			o := Order{Task: task, Jobs: 100, Concurrency: 5, Payload: 100}
			f := &fake{jobs: make(chan []byte, 1000)}
			if task == "drain" {
				require.NoError(t, f.Bulk(t.Context(), Payload(100), 100))
			}
			r, finish, err := measure(t.Context(), []Peer{f}, o)
			require.NoError(t, err)
			finish()

			assert.False(t, f.working.Load(), "a worker was left")
			assert.Equal(t, 100, r.Jobs)
			assert.Positive(t, r.Seconds)
			left := map[string]int{"save": 100, "bulk": 100}
			assert.Len(t, f.jobs, left[task])
			if task == "latency" {
				assert.Len(t, r.Start, 100)
				assert.Len(t, r.Result, 100)
			}
		})
	}
	_, _, err := measure(t.Context(), nil, Order{Task: "nap"})
	assert.ErrorContains(t, err, `no task "nap"`)
}

// TestWarmUpCloses looks for what a warm-up leaves behind: nothing of it may be at
// work while we measure.
func TestWarmUpCloses(t *testing.T) {
	for _, task := range []string{"save", "bulk", "drain", "mixed", "latency", "work", "idle"} {
		t.Run(task, func(t *testing.T) {
			var opened []*fake
			open := func(_ context.Context, _, queue string) (Peer, error) {
				assert.Equal(t, "warm-up", queue)
				opened = append(opened, &fake{jobs: make(chan []byte, 1000)})
				return opened[len(opened)-1], nil
			}
			err := warmUp(t.Context(), open, Order{Task: task, Queue: "bench", Jobs: 1000, Concurrency: 5, Payload: 100, Warm: 50})
			require.NoError(t, err)
			require.NotEmpty(t, opened)
			for _, f := range opened {
				assert.True(t, f.closed.Load(), "a queue was left open")
				assert.False(t, f.working.Load(), "a worker was left")
			}
		})
	}
}

func TestPayload(t *testing.T) {
	for _, n := range []int{8, 100, 10_000} {
		assert.Len(t, Payload(n), n)
	}
	assert.JSONEq(t, `{"p":"xx"}`, string(Payload(10)))
}

func TestOrderQueues(t *testing.T) {
	assert.Equal(t, []string{"q"}, Order{Queue: "q"}.queues())
	assert.Equal(t, []string{"q0", "q1"}, Order{Queue: "q", Queues: 2}.queues())
}
