package interop_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nextYear is when delayed jobs are due that are not to be run.
func nextYear() time.Time { return time.Now().AddDate(1, 0, 0).Truncate(time.Millisecond) }

// obeying is a handler like Node's `obey`.
func obeying(_ context.Context, job *beequeue.Job) (any, error) {
	var in obey
	if err := job.Decode(&in); err != nil {
		return nil, err
	}
	if in.Fail != "" {
		return nil, errors.New(in.Fail)
	}
	return in.Result, nil
}

// states fills the queue with jobs of every state but active, by both sides, and
// returns their ids.
func states(t *testing.T, g *goQueue, n *nodeQueue) map[beequeue.State][]string {
	t.Helper()
	ids := make(map[beequeue.State][]string)
	both := func(state beequeue.State, data obey) {
		ids[state] = append(ids[state], save(t, g.CreateJob(data)).ID, n.save(t, nodeJob{Data: data}))
	}
	both(beequeue.StateSucceeded, obey{Result: 1})
	both(beequeue.StateFailed, obey{Fail: "boom"})
	require.NoError(t, g.Drain(t.Context(), 2, obeying))
	both(beequeue.StateWaiting, obey{})
	ids[beequeue.StateDelayed] = []string{
		save(t, g.CreateJob(nil).DelayUntil(nextYear())).ID,
		n.save(t, nodeJob{DelayUntil: nextYear().Add(time.Minute).UnixMilli()}),
	}
	return ids
}

// counts are Node's, as checkHealth has them.
func (q *nodeQueue) counts(t *testing.T) beequeue.Counts {
	t.Helper()
	c := decode[map[string]int64](t, q.call(t, "counts", nil))
	return beequeue.Counts{
		Waiting: c["waiting"], Active: c["active"], Delayed: c["delayed"],
		Succeeded: c["succeeded"], Failed: c["failed"], NewestJob: c["newestJob"],
	}
}

func goCounts(t *testing.T, g *goQueue) beequeue.Counts {
	t.Helper()
	counts, err := g.Counts(t.Context())
	require.NoError(t, err)
	return counts
}

// listed gives the ids of the jobs that Go lists.
func listed(t *testing.T, g *goQueue, state beequeue.State, page beequeue.Page) []string {
	t.Helper()
	jobs, err := g.GetJobs(t.Context(), state, page)
	require.NoError(t, err)
	ids := make([]string, len(jobs))
	for i, job := range jobs {
		ids[i] = job.ID
	}
	return ids
}

// jobs gives the ids of the jobs that Node lists.
func (q *nodeQueue) jobs(t *testing.T, state beequeue.State, page map[string]int) []string {
	t.Helper()
	return decode[[]string](t, q.call(t, "jobs", map[string]any{"type": state, "page": page}))
}

func TestCountsAndListsAgree(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "counts", func(t *testing.T, s *site) {
		// Node lists jobs that it has in store before the others.
		g, n := s.goQueue(t), s.nodeQueue(t, settings{"storeJobs": false})
		assert.Equal(t, goCounts(t, g), n.counts(t), "of an empty queue")
		ids := states(t, g, n)
		busy := save(t, g.CreateJob(obey{}))
		open := make(chan struct{})
		running := make(chan string, 3)
		work := g.start(t, 3, func(_ context.Context, job *beequeue.Job) (any, error) {
			running <- job.ID
			<-open
			return nil, nil
		})
		for range 3 {
			receive(t, running, "a job")
		}
		assert.Equal(t, beequeue.Counts{Active: 3, Delayed: 2, Succeeded: 2, Failed: 2, NewestJob: 9}, goCounts(t, g))
		assert.Equal(t, goCounts(t, g), n.counts(t))
		assert.ElementsMatch(t, append(ids[beequeue.StateWaiting], busy.ID), listed(t, g, beequeue.StateActive, beequeue.Page{}))
		assert.Equal(t, listed(t, g, beequeue.StateActive, beequeue.Page{}), n.jobs(t, beequeue.StateActive, nil))
		close(open)
		work.stop()

		waiting := n.saveAll(t, make([]nodeJob, 5))
		assert.Equal(t, beequeue.Counts{Waiting: 5, Delayed: 2, Succeeded: 5, Failed: 2, NewestJob: 14}, goCounts(t, g))
		assert.Equal(t, goCounts(t, g), n.counts(t))
		slices.Reverse(waiting)
		assert.Equal(t, waiting, listed(t, g, beequeue.StateWaiting, beequeue.Page{}), "newest first")
		assert.Equal(t, waiting, n.jobs(t, beequeue.StateWaiting, nil))
		assert.Equal(t, waiting[1:3], listed(t, g, beequeue.StateWaiting, beequeue.Page{Start: 1, Size: 2}))
		assert.Equal(t, waiting[1:3], n.jobs(t, beequeue.StateWaiting, map[string]int{"start": 1, "end": 2}))
		assert.Equal(t, ids[beequeue.StateDelayed], listed(t, g, beequeue.StateDelayed, beequeue.Page{}))
		assert.Equal(t, ids[beequeue.StateDelayed], n.jobs(t, beequeue.StateDelayed, nil))
		for _, state := range []beequeue.State{beequeue.StateSucceeded, beequeue.StateFailed} {
			assert.ElementsMatch(t, listed(t, g, state, beequeue.Page{}), n.jobs(t, state, nil))
		}
	})
}

// The ids of the two sides come from one counter, and an id is unique.
func TestIDs(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "ids", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		assert.Equal(t, "1", save(t, g.CreateJob(nil)).ID)
		assert.Equal(t, "2", n.save(t, nodeJob{}))
		assert.Equal(t, "3", save(t, g.CreateJob(nil)).ID)

		const id = "user:münch/{7} 8"
		assert.Equal(t, id, n.save(t, nodeJob{ID: id, Data: "Node's"}))
		require.ErrorIs(t, g.CreateJob("Go's").SetID(id).Save(t.Context()), beequeue.ErrDuplicateID)
		assert.Equal(t, `"Node's"`, string(g.get(t, id).Data))

		save(t, g.CreateJob("Go's").SetID("mine"))
		assert.Empty(t, n.save(t, nodeJob{ID: "mine", Data: "Node's"}))
		assert.JSONEq(t, `"Go's"`, string(n.job(t, "mine").Data))
		assert.Equal(t, beequeue.Counts{Waiting: 5, NewestJob: 3}, goCounts(t, g))

		// A number that Node used as an id is no hindrance to Go.
		assert.Equal(t, "4", n.save(t, nodeJob{ID: "4"}))
		assert.Equal(t, "5", save(t, g.CreateJob(nil)).ID)

		// An id is free again when its job is removed.
		n.do(t, "remove", "mine")
		save(t, g.CreateJob("again").SetID("mine"))
		require.NoError(t, g.RemoveJob(t.Context(), id))
		assert.Equal(t, id, n.save(t, nodeJob{ID: id}))
	})
}

func TestRemove(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name   string
		remove func(t *testing.T, g *goQueue, n *nodeQueue, id string)
	}{
		{"go", func(t *testing.T, g *goQueue, _ *nodeQueue, id string) {
			t.Helper()
			require.NoError(t, g.RemoveJob(t.Context(), id))
		}},
		{"node", func(t *testing.T, _ *goQueue, n *nodeQueue, id string) {
			t.Helper()
			n.do(t, "remove", id)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.eachLayout(t, "remove-"+c.name, func(t *testing.T, s *site) {
				g, n := s.goQueue(t), s.nodeQueue(t, settings{"storeJobs": false})
				for _, ids := range states(t, g, n) {
					for _, id := range ids {
						c.remove(t, g, n, id)
						_, err := g.GetJob(t.Context(), id)
						require.ErrorIs(t, err, beequeue.ErrNotFound)
						assert.Nil(t, n.job(t, id))
					}
				}
				assert.Equal(t, beequeue.Counts{NewestJob: 8}, goCounts(t, g))
			})
		})
	}
}

// Node removes a job that a Go worker is at: nothing of it is recorded.
func TestNodeRemovesJobThatGoRuns(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "remove-running", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, settings{"storeJobs": false})
		job := save(t, g.CreateJob(nil).Retries(2))
		running, removed := make(chan struct{}), make(chan struct{})
		g.start(t, 1, func(context.Context, *beequeue.Job) (any, error) {
			close(running)
			<-removed
			return nil, errors.New("too late")
		})
		receive(t, running, "the job")
		n.do(t, "remove", job.ID)
		close(removed)
		g.expectError(t, beequeue.ErrOwnershipLost)
		assert.Nil(t, n.job(t, job.ID))
		assert.Empty(t, s.places(t))
		owners, err := s.do("HLEN", "owners").AsInt64()
		require.NoError(t, err)
		assert.Zero(t, owners)
	})
}

// A failed job is put back into waiting by the other side.
func TestRetryByHand(t *testing.T) {
	w := newWorld(t)
	t.Run("Go failed, Node retries", func(t *testing.T) {
		w.eachLayout(t, "again-go", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			id := n.save(t, nodeJob{Data: obey{Fail: "boom"}})
			require.NoError(t, g.Drain(t.Context(), 1, obeying))
			n.await(t, "job", "failed", id)
			n.do(t, "retry", id)
			s.awaitPlace(t, id, "waiting")
			require.NoError(t, g.Drain(t.Context(), 1, echo))
			n.await(t, "queue", "job succeeded", id)
			assert.Equal(t, "succeeded", n.job(t, id).Status)
			assert.Equal(t, []string{"boom"}, g.get(t, id).Options.Stacktraces)
			assert.True(t, decode[bool](t, n.call(t, "isInSet", map[string]any{"id": id, "set": "succeeded"})))
			assert.False(t, decode[bool](t, n.call(t, "isInSet", map[string]any{"id": id, "set": "failed"})))
		})
	})
	t.Run("Node failed, Go retries", func(t *testing.T) {
		w.eachLayout(t, "again-node", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			job := save(t, g.CreateJob("x"))
			n.process(t, 1, "failTimes", map[string]any{"times": 1})
			n.await(t, "queue", "failed:fatal", job.ID)
			require.NoError(t, job.Retry(t.Context()))
			n.await(t, "queue", "succeeded", job.ID)
			require.ErrorIs(t, job.Retry(t.Context()), beequeue.ErrNotFailed)
			in, err := job.IsInSet(t.Context(), beequeue.StateSucceeded)
			require.NoError(t, err)
			assert.True(t, in)
		})
	})
}

func TestDestroy(t *testing.T) {
	w := newWorld(t)
	t.Run("by Node", func(t *testing.T) {
		w.eachLayout(t, "destroy-node", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			states(t, g, n)
			n.do(t, "destroy", "")
			assert.Equal(t, beequeue.Counts{}, goCounts(t, g))
			// The ids begin anew, and what Go keeps beside Node's keys does no harm.
			for i := range 3 {
				assert.Equal(t, strconv.Itoa(i+1), save(t, g.CreateJob(obey{Result: i})).ID)
			}
			require.NoError(t, g.Drain(t.Context(), 2, obeying))
			assert.Equal(t, beequeue.Counts{Succeeded: 3, NewestJob: 3}, n.counts(t))
		})
	})
	t.Run("by Go", func(t *testing.T) {
		w.eachLayout(t, "destroy-go", func(t *testing.T, s *site) {
			g, n := s.goQueue(t), s.nodeQueue(t, nil)
			states(t, g, n)
			_, err := g.Destroy(t.Context())
			require.NoError(t, err)
			assert.Equal(t, beequeue.Counts{}, n.counts(t))
			assert.Equal(t, "1", n.save(t, nodeJob{}))
		})
	})
}

// What is known of a job does not go over to another that gets its id.
func TestIDOfUnreadableJobIsUsedAgain(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "reasons", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, settings{"storeJobs": false})
		n.save(t, nodeJob{ID: "odd", Options: map[string]any{"timeout": []int{1}}})
		require.NoError(t, g.Drain(t.Context(), 1, echo))
		var bad *beequeue.RecordError
		g.expectErrorAs(t, &bad)
		_, err := g.GetJob(t.Context(), "odd")
		require.ErrorAs(t, err, &bad)
		assert.Equal(t, []string{"failed"}, s.places(t)["odd"])

		n.do(t, "remove", "odd")
		assert.Equal(t, "odd", n.save(t, nodeJob{ID: "odd", Data: obey{Fail: "boom"}}))
		require.NoError(t, g.Drain(t.Context(), 1, obeying))
		assert.Equal(t, "failed", n.job(t, "odd").Status)
		job, err := g.GetJob(t.Context(), "odd")
		require.NoError(t, err)
		assert.Equal(t, []string{"boom"}, job.Options.Stacktraces)
	})
}
