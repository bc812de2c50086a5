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
	const jobs = int64(200)
	w := newWorld(t)
	w.eachLayout(t, "turns", func(t *testing.T, s *site) {
		n, g, producer := s.nodeQueue(t, nil), s.goQueue(t), s.goQueue(t)
		var ran atomic.Int64
		running := g.start(t, 10, func(context.Context, *beequeue.Job) (any, error) {
			ran.Add(1)
			return nil, nil
		})
		n.process(t, 10, "echo", nil)
		// A machine that starves one of the two lets the other be first more often.
		var shares []int64
		for range 5 {
			before := ran.Load()
			for range jobs {
				job := producer.CreateJob(nil)
				require.NoError(t, job.Save(t.Context()))
				_, err := job.Wait(t.Context())
				require.NoError(t, err)
				pause := time.NewTimer(5 * time.Millisecond) // so that both wait when the next comes
				<-pause.C
			}
			share := ran.Load() - before
			shares = append(shares, share)
			if share >= jobs/4 && share <= jobs*3/4 {
				break
			}
		}
		running.stop()
		last := shares[len(shares)-1]
		t.Logf("Go ran %v of %d", shares, jobs)
		assert.InDelta(t, jobs/2, last, float64(jobs)/4)
	})
}
