package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNodeSavesGoProcesses(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "greet", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		before := time.Now().Truncate(time.Millisecond)
		id := n.save(t, nodeJob{
			Data:    map[string]any{"name": "Mäh ☃", "tags": []string{}},
			Retries: 2, Timeout: 60_000, Backoff: &nodeBackoff{"exponential", 1500},
		})
		seen := make(chan *beequeue.Job, 1)
		work := g.start(t, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			var in struct{ Name string }
			if err := job.Decode(&in); err != nil {
				return nil, err
			}
			seen <- job
			return map[string]any{"greeting": "hi " + in.Name}, nil
		})

		result := `{"greeting":"hi Mäh ☃"}`
		assert.JSONEq(t, result, string(n.await(t, "job", "succeeded", id).Data))
		assert.JSONEq(t, result, string(n.await(t, "queue", "job succeeded", id).Data))
		work.stop()
		job := receive(t, seen, "the job")
		assert.Equal(t, id, job.ID)
		assert.JSONEq(t, `{"name":"Mäh ☃","tags":[]}`, string(job.Data))
		assert.Equal(t, 2, job.Options.Retries)
		assert.Equal(t, time.Minute, job.Options.Timeout)
		assert.Equal(t, beequeue.Backoff{Strategy: beequeue.Exponential, Delay: 1500 * time.Millisecond}, job.Options.Backoff)
		assert.WithinRange(t, job.Options.Created, before, time.Now())

		read := n.job(t, id)
		require.NotNil(t, read)
		assert.Equal(t, "succeeded", read.Status)
		assert.Equal(t, 2, read.Options.Retries)
		assert.Equal(t, []string{"succeeded"}, s.places(t)[id])
	})
}

func TestGoSavesNodeProcesses(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "greet", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		job := save(t, g.CreateJob(map[string]any{"name": "Mäh ☃", "html": "<&>", "tags": []int{}}).
			Retries(2).Timeout(time.Minute).Backoff(beequeue.Exponential, 1500*time.Millisecond))
		done := s.listen(t, job.ID)
		n.process(t, 1, "echo", nil)

		got := receive(t, done, "the result")
		require.NoError(t, got.err)
		assert.JSONEq(t, `{"name":"Mäh ☃","html":"<&>","tags":[]}`, got.result)
		read := decode[readJob](t, n.await(t, "handler", "start", job.ID).Data)
		assert.JSONEq(t, got.result, string(read.Data))
		assert.Equal(t, nodeOptions{
			Timestamp: job.Options.Created.UnixMilli(), Stacktraces: []any{},
			Retries: 2, Timeout: 60_000, Backoff: &nodeBackoff{"exponential", 1500},
		}, read.Options)
		assert.Equal(t, "created", read.Status)
		s.awaitPlace(t, job.ID, "succeeded")
		assert.Equal(t, beequeue.StatusSucceeded, g.get(t, job.ID).Status)
	})
}

// A worker with one slot runs jobs in the order they were saved in, whoever
// saved them.
func TestOrder(t *testing.T) {
	const count = 40
	fill := func(t *testing.T, g *goQueue, n *nodeQueue) (ids []string) {
		t.Helper()
		var ours []*beequeue.Job
		var theirs []nodeJob
		for i := range count / 2 {
			ours = append(ours, g.CreateJob(i))
			theirs = append(theirs, nodeJob{Data: i})
		}
		require.NoError(t, g.SaveAll(t.Context(), ours))
		for _, job := range ours {
			ids = append(ids, job.ID)
		}
		return append(ids, n.saveAll(t, theirs)...)
	}
	w := newWorld(t)
	t.Run("Go processes", func(t *testing.T) {
		w.eachLayout(t, "order", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			want := fill(t, g, n)
			var ran []string
			require.NoError(t, g.Drain(t.Context(), 1, func(_ context.Context, job *beequeue.Job) (any, error) {
				ran = append(ran, job.ID)
				return nil, nil
			}))
			assert.Equal(t, want, ran)
			n.awaitSome(t, count, "queue", "job succeeded", "")
		})
	})
	t.Run("Node processes", func(t *testing.T) {
		w.eachLayout(t, "order-node", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			want := fill(t, g, n)
			n.process(t, 1, "obey", nil)
			var ran []string
			for _, e := range n.awaitSome(t, count, "handler", "start", "") {
				ran = append(ran, e.ID)
			}
			assert.Equal(t, want, ran)
			n.awaitSome(t, count, "queue", "succeeded", "")
		})
	})
}

// Two workers of each kind share a queue: each job is run once, by one of them,
// and all of them take part.
func TestMixedWorkersRunEachJobOnce(t *testing.T) {
	const each = 200 // jobs saved by either side
	w := newWorld(t)
	w.eachLayout(t, "mixed", func(t *testing.T, s *site) {
		var mu sync.Mutex
		runs := make(map[string]int)
		n1, n2 := s.nodeQueue(t, nil), s.nodeQueue(t, nil)
		g1, g2 := s.goQueue(t), s.goQueue(t)

		// Nobody goes on before everybody has a job.
		begun := make(chan struct{}, 4*each)
		open := make(chan struct{})
		handler := func(ctx context.Context, job *beequeue.Job) (any, error) {
			mu.Lock()
			runs[job.ID]++
			mu.Unlock()
			begun <- struct{}{}
			<-open
			return nil, job.ReportProgress(ctx, "done")
		}
		theirs := make([]nodeJob, each)
		n1.saveAll(t, theirs)
		n1.process(t, 3, "hold", nil)
		n2.process(t, 3, "hold", nil)
		first := g1.start(t, 3, handler)
		second := g2.start(t, 3, handler)
		n1.awaitSome(t, 3, "handler", "start", "")
		n2.awaitSome(t, 3, "handler", "start", "")
		for range 6 {
			receive(t, begun, "a run in Go")
		}
		close(open)
		n1.do(t, "release", "")
		n2.do(t, "release", "")

		var ours []*beequeue.Job
		for i := range each {
			ours = append(ours, g1.CreateJob(map[string]int{"i": i}))
		}
		require.NoError(t, g1.SaveAll(t.Context(), ours))
		require.Eventually(t, func() bool {
			counts, err := g1.Counts(t.Context())
			return err == nil && counts.Succeeded == 2*each
		}, patience, 10*time.Millisecond)
		first.stop()
		second.stop()

		n1.node.sync(t)
		for _, n := range []*nodeQueue{n1, n2} {
			for _, e := range n.all("handler", "start") {
				runs[e.ID]++
			}
		}
		assert.Len(t, runs, 2*each)
		for id, times := range runs {
			assert.Equal(t, 1, times, "runs of job %s", id)
		}
		owners, err := s.do("HLEN", "owners").AsInt64()
		require.NoError(t, err)
		assert.Zero(t, owners)
	})
}

// A Go worker that shuts down gives back what it has not finished, and Node takes
// it at once.
func TestGoHandsBackToNode(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "handback", func(t *testing.T, s *site) {
		g := s.goQueue(t, func(c *beequeue.Config) { c.ShutdownTimeout = 50 * time.Millisecond })
		n := s.nodeQueue(t, nil)
		first := n.save(t, nodeJob{Data: "first"})
		ctx, cancel := context.WithCancel(t.Context())
		err := g.Process(ctx, 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			n.save(t, nodeJob{Data: "second"})
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		})
		require.ErrorIs(t, err, beequeue.ErrUnfinished)
		n.process(t, 1, "echo", nil)
		assert.Equal(t, "first", n.await(t, "job", "succeeded", first).text())
		assert.Equal(t, first, n.all("handler", "start")[0].ID, "it goes to the front")
		assert.Empty(t, s.record(t, first).Options["retries"])
	})
}

// Workers that keep no records of finished jobs still tell of them.
func TestRecordsRemovedAtTheEnd(t *testing.T) {
	w := newWorld(t)
	t.Run("by Node", func(t *testing.T) {
		w.eachLayout(t, "tidy-node", func(t *testing.T, s *site) {
			g := s.goQueue(t)
			n := s.nodeQueue(t, settings{"removeOnSuccess": true, "removeOnFailure": true})
			good, bad := save(t, g.CreateJob(obey{Result: "good"})), save(t, g.CreateJob(obey{Fail: "bad"}))
			succeeded, failed := s.listen(t, good.ID), s.listen(t, bad.ID)
			n.process(t, 1, "obey", nil)
			got := receive(t, succeeded, "the result")
			require.NoError(t, got.err)
			assert.JSONEq(t, `"good"`, got.result)
			assert.Equal(t, "bad", receive(t, failed, "the failure").message(t))
			for _, job := range []*beequeue.Job{good, bad} {
				_, err := g.GetJob(t.Context(), job.ID)
				require.ErrorIs(t, err, beequeue.ErrNotFound)
				_, err = job.Wait(t.Context())
				require.ErrorIs(t, err, beequeue.ErrNotFound)
			}
		})
	})
	t.Run("by Go", func(t *testing.T) {
		w.eachLayout(t, "tidy-go", func(t *testing.T, s *site) {
			g := s.goQueue(t, func(c *beequeue.Config) { c.RemoveOnSuccess, c.RemoveOnFailure = true, true })
			n := s.nodeQueue(t, nil)
			good, bad := n.save(t, nodeJob{Data: "good"}), n.save(t, nodeJob{Data: "bad"})
			require.NoError(t, g.Drain(t.Context(), 2, func(_ context.Context, job *beequeue.Job) (any, error) {
				if string(job.Data) == `"bad"` {
					return nil, fmt.Errorf("no %s", job.Data)
				}
				return json.RawMessage(`[1]`), nil
			}))
			assert.JSONEq(t, `[1]`, string(n.await(t, "job", "succeeded", good).Data))
			assert.Equal(t, `no "bad"`, n.await(t, "job", "failed", bad).text())
			assert.Nil(t, n.job(t, good))
			assert.Nil(t, n.job(t, bad))
			assert.Empty(t, s.places(t))
		})
	})
}
