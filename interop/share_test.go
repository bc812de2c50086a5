package interop_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// Idle workers of Go and of Node get jobs in turns: Redis serves those who wait in the
// order in which they came.
func TestGoAndNodeTakeTurns(t *testing.T) {
	const jobs = 200
	w := newWorld(t)
	w.eachLayout(t, "turns", func(t *testing.T, s *site) {
		n, g, producer := s.nodeQueue(t, nil), s.goQueue(t), s.goQueue(t)
		var ran atomic.Int64
		running := g.start(t, 10, func(context.Context, *beequeue.Job) (any, error) {
			ran.Add(1)
			return nil, nil
		})
		n.process(t, 10, "echo", nil)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range jobs {
			<-tick.C
			job := producer.CreateJob(nil)
			require.NoError(t, job.Save(t.Context()))
			_, err := job.Wait(t.Context()) // both are idle when the next comes
			require.NoError(t, err)
		}
		running.stop()
		t.Logf("Go ran %d of %d", ran.Load(), jobs)
		assert.InDelta(t, jobs/2, ran.Load(), jobs/4)
	})
}
