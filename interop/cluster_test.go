package interop_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// On a node of a cluster, which checks the slots of keys, Go and Node share a
// queue as on any server, if its keys have a hash tag.
func TestCluster(t *testing.T) {
	t.Parallel()
	needNode(t)
	w := joinWorld(t, redistest.StartClusterNode(t).Addr)
	require.Equal(t, rueidis.ClientModeCluster, w.client.Mode())
	_, err := beequeue.New(w.client, "plain", beequeue.Config{PlainKeys: true})
	require.ErrorIs(t, err, beequeue.ErrKeyLayout)

	w.eachTagged(t, "cluster", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, settings{"activateDelayedJobs": true, "delayedDebounce": 1})
		theirs := n.save(t, nodeJob{Data: "Node's", Retries: 1, Backoff: &nodeBackoff{"fixed", 20}})
		work := g.start(t, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if len(job.Options.Stacktraces) == 0 {
				return nil, errors.New("once more")
			}
			return job.Data, nil
		})
		assert.Equal(t, "Node's", n.await(t, "job", "succeeded", theirs).text())
		work.stop()

		ours := save(t, g.CreateJob("Go's").Retries(1).Backoff(beequeue.Fixed, 1))
		done := s.listen(t, ours.ID)
		n.process(t, 1, "failTimes", map[string]any{"times": 1})
		got := receive(t, done, "the result")
		require.NoError(t, got.err)
		assert.JSONEq(t, `"Go's"`, got.result)
		assert.Equal(t, beequeue.Counts{Succeeded: 2, NewestJob: 2}, n.counts(t))
	})
}
