package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// values are what may be reported as progress, or be a result.
func values() []any {
	return []any{
		float64(1), 0.25, "half", "", "ü ☃ 𝄞 \u2028 <&>", true, false, float64(0),
		[]any{},
		[]any{float64(1), "b", nil},
		map[string]any{},
		map[string]any{"done": float64(3), "of": []any{}},
	}
}

// told is something that one of the OnJob callbacks was called with.
type told struct{ name, id, value string }

// hear collects what the OnJob callbacks of a queue are told.
func hear(g *goQueue) <-chan told {
	c := make(chan told, 1000)
	success := func(name string) func(string, json.RawMessage) {
		return func(id string, v json.RawMessage) { c <- told{name, id, string(v)} }
	}
	failure := func(name string) func(string, error) {
		return func(id string, err error) {
			message := err.Error()
			var failed *beequeue.FailedError
			if errors.As(err, &failed) && failed.ID == id {
				message = failed.Message
			}
			c <- told{name, id, message}
		}
	}
	g.OnJobSucceeded(success("succeeded"))
	g.OnJobProgress(success("progress"))
	g.OnJobRetrying(failure("retrying"))
	g.OnJobFailed(failure("failed"))
	return c
}

func TestGoHearsNode(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "news", func(t *testing.T, s *site) {
		g, all, n := s.goQueue(t), s.goQueue(t), s.nodeQueue(t, nil)
		heard := hear(all)
		job := save(t, g.CreateJob(map[string]any{"a": []int{1}}).Retries(1))
		watched := make(chan beequeue.Event, 1000)
		go func() {
			_, _ = job.Watch(t.Context(), func(e beequeue.Event) { watched <- e })
		}()
		s.awaitSubscribers(t, "events", 3)
		// All values are reported in both runs, and both fail.
		n.process(t, 1, "progress", map[string]any{"values": values(), "fail": true, "message": "boom"})

		for _, run := range []string{"retrying", "failed"} {
			for i, v := range values() {
				e := receive(t, heard, "progress %d", i)
				assert.Equal(t, "progress", e.name)
				assert.Equal(t, job.ID, e.id)
				assert.JSONEq(t, text(t, v), e.value)
				own := receive(t, watched, "progress %d", i)
				assert.Equal(t, "progress", own.Name)
				assert.JSONEq(t, text(t, v), string(own.Data))
			}
			assert.Equal(t, told{run, job.ID, "boom"}, receive(t, heard, "%s", run))
			own := receive(t, watched, "%s", run)
			assert.Equal(t, run, own.Name)
			require.ErrorContains(t, own.Err, "boom")
		}
		last := values()[len(values())-1]
		assert.JSONEq(t, text(t, last), string(g.get(t, job.ID).Progress))
	})
}

func TestGoHearsNodesResults(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "results", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		heard := hear(g)
		s.awaitSubscribers(t, "events", 2)
		n.process(t, 1, "obey", nil)
		for _, v := range values() {
			job := save(t, g.CreateJob(map[string]any{"result": v}))
			e := receive(t, heard, "the result %v", v)
			assert.Equal(t, "succeeded", e.name)
			assert.Equal(t, job.ID, e.id)
			assert.JSONEq(t, text(t, v), e.value)
		}
		job := save(t, g.CreateJob(obey{}))
		assert.Equal(t, told{"succeeded", job.ID, ""}, receive(t, heard, "no result"))
	})
}

func TestNodeHearsGo(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "news-go", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		id := n.save(t, nodeJob{Retries: 1})
		g.start(t, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
			for _, v := range values() {
				if err := job.ReportProgress(ctx, v); err != nil {
					return nil, err
				}
			}
			return nil, errors.New("bööm <&>")
		})
		n.await(t, "job", "failed", id)
		for _, listener := range []struct{ from, prefix string }{{"job", ""}, {"queue", "job "}} {
			var want []string
			for _, run := range []string{"retrying", "failed"} {
				for _, v := range values() {
					want = append(want, listener.prefix+"progress "+compact(t, v))
				}
				want = append(want, listener.prefix+run+` "bööm <&>"`)
			}
			assert.Equal(t, want, n.history(listener.from, id))
		}
		last := values()[len(values())-1]
		assert.JSONEq(t, text(t, last), string(n.job(t, id).Progress))
	})
}

// compact gives a value as Node writes it: without escapes that HTML needs.
func compact(t *testing.T, value any) string {
	t.Helper()
	s := text(t, value)
	for _, r := range []rune{'<', '>', '&', '\u2028'} {
		s = replaceEscape(s, r)
	}
	return s
}

func TestNodeHearsGosResults(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "results-go", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		var ids []string
		for _, v := range values() {
			ids = append(ids, n.save(t, nodeJob{Data: obey{Result: v}}))
		}
		none := n.save(t, nodeJob{})
		g.start(t, 3, func(_ context.Context, job *beequeue.Job) (any, error) {
			var in struct{ Result any }
			err := job.Decode(&in)
			return in.Result, err
		})
		for i, v := range values() {
			assert.JSONEq(t, text(t, v), string(n.await(t, "job", "succeeded", ids[i]).Data))
			assert.JSONEq(t, text(t, v), string(n.await(t, "queue", "job succeeded", ids[i]).Data))
		}
		assert.Nil(t, n.await(t, "job", "succeeded", none).Data)
	})
}

// Wait comes to the same end whether Node finishes the job before or after it
// begins; only the result of a job that ended before is gone, as Node keeps none.
func TestWaitForNode(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "wait", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		good := save(t, g.CreateJob(obey{Result: []int{1, 2}}))
		bad := save(t, g.CreateJob(obey{Fail: "boom: it broke"}))
		goodDone, badDone := s.listen(t, good.ID), s.listen(t, bad.ID)
		n.process(t, 1, "obey", nil)

		got := receive(t, goodDone, "the result")
		require.NoError(t, got.err)
		assert.JSONEq(t, `[1,2]`, got.result)
		assert.Equal(t, "boom: it broke", receive(t, badDone, "the failure").message(t))

		late := s.goQueue(t)
		got = receive(t, wait(t, late.get(t, good.ID)), "the result")
		require.NoError(t, got.err)
		assert.Empty(t, got.result)
		got = receive(t, wait(t, late.get(t, bad.ID)), "the failure")
		assert.Equal(t, "boom: it broke", got.message(t))
		var failed *beequeue.FailedError
		require.ErrorAs(t, got.err, &failed)
		assert.Contains(t, failed.Stack, "Error: boom: it broke\n    at ")
	})
}

// A worker that sends no events: Wait looks for itself now and then.
func TestWaitWithoutEvents(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "quiet", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, settings{"sendEvents": false})
		good, bad := save(t, g.CreateJob(obey{Result: 1})), save(t, g.CreateJob(obey{Fail: "boom"}))
		goodDone, badDone := s.listen(t, good.ID), s.listen(t, bad.ID)
		n.process(t, 1, "obey", nil)
		require.NoError(t, receive(t, goodDone, "the result").err)
		assert.Equal(t, "boom", receive(t, badDone, "the failure").message(t))
	})
}

// A Go worker with NoEvents sends none either.
func TestNoEvents(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "quiet-go", func(t *testing.T, s *site) {
		n := s.nodeQueue(t, nil)
		quiet, loud := s.goQueue(t, func(c *beequeue.Config) { c.NoEvents = true }), s.goQueue(t)
		first := n.save(t, nodeJob{})
		require.NoError(t, quiet.Drain(t.Context(), 1, echo))
		second := n.save(t, nodeJob{})
		require.NoError(t, loud.Drain(t.Context(), 1, echo))
		n.await(t, "job", "succeeded", second)
		assert.Empty(t, n.history("job", first))
		assert.Empty(t, n.history("queue", first))
		assert.Equal(t, "succeeded", s.record(t, first).Status)
	})
}
