package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// deep is data nested many times.
func deep() any {
	var v any = []any{}
	for range 200 {
		v = map[string]any{"in": []any{v, map[string]any{}}}
	}
	return v
}

// payloads are job data that a careless codec would change.
func payloads() map[string]any {
	return map[string]any{
		"unicode":     "ü ☃ 𝄞 \u2028\u2029 \u0000\u001f\"\\/ <&>",
		"empty":       map[string]any{"list": []any{}, "object": map[string]any{}, "text": "", "none": nil, "lists": []any{[]any{}}},
		"empty list":  []any{},
		"numbers":     []any{1 << 60, -1 << 60, 1e21, 1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64, 0.1, -0.5},
		"order":       json.RawMessage(`{"z":1,"a":2,"m":3,"10":4,"9":5}`),
		"deep":        deep(),
		"big":         strings.Repeat("mäh ", 100_000),
		"text":        "text",
		"odd names":   map[string]any{"__proto__x": 1, "constructor": 2, "a.b": 3, "": 4, "ünï": 5},
		"like record": map[string]any{"data": 1, "options": map[string]any{"retries": "x"}, "status": "failed"},
	}
}

// Go runs a job of Node's twice, so it writes the record anew two times. Of the
// data not a byte changes; options that beequeue does not know stay.
func TestNodesRecordsSurviveGo(t *testing.T) {
	unknown := map[string]any{
		"tenant": "münch", "nested": map[string]any{"list": []any{}, "n": 1 << 60}, "nothing": nil, "zero": 0, "removeOnComplete": true,
	}
	w := newWorld(t)
	w.eachLayout(t, "survive-go", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, settings{"storeJobs": false})
		before := make(map[string]record)
		for name, data := range payloads() {
			n.save(t, nodeJob{ID: name, Data: data, Retries: 1, Timeout: 60_000, Backoff: &nodeBackoff{"fixed", 1}, Options: unknown})
			before[name] = s.record(t, name)
		}
		work := g.start(t, 3, func(_ context.Context, job *beequeue.Job) (any, error) {
			if job.Options.Retries > 0 {
				return nil, errors.New("once more")
			}
			return job.Data, nil
		})
		n.awaitSome(t, len(before), "queue", "job succeeded", "")
		work.stop()
		for name, was := range before {
			is := s.record(t, name)
			assert.Equal(t, string(was.Data), string(is.Data), name)
			assert.JSONEq(t, string(was.Data), string(is.Result), name)
			for _, r := range []record{was, is} { // these change with each run
				delete(r.Options, "retries")
				delete(r.Options, "stacktraces")
			}
			assert.Equal(t, was.Options, is.Options, name)
			read := n.job(t, name)
			require.NotNil(t, read)
			assert.JSONEq(t, string(was.Data), string(read.Data), name)
			assert.Equal(t, []any{"once more"}, read.Options.Stacktraces, name)
		}
	})
}

// The other way round: Node reads what Go wrote, runs it twice and leaves Go a
// record with the same data and options.
func TestGosRecordsSurviveNode(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "survive-node", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, settings{"activateDelayedJobs": true, "delayedDebounce": 1})
		jobs := make(map[string]*beequeue.Job)
		for name, data := range payloads() {
			jobs[name] = save(t, g.CreateJob(data).SetID(name).Retries(1).Timeout(time.Minute).Backoff(beequeue.Fixed, time.Millisecond))
		}
		n.process(t, 3, "failTimes", map[string]any{"times": 1, "message": "once more, run"})
		n.awaitSome(t, len(jobs), "queue", "job succeeded", "")
		for name, was := range jobs {
			assert.JSONEq(t, string(was.Data), string(n.await(t, "queue", "job succeeded", name).Data), name)
			is := g.get(t, name)
			assert.JSONEq(t, string(was.Data), string(is.Data), name)
			assert.Equal(t, beequeue.StatusSucceeded, is.Status, name)
			assert.Equal(t, was.Options.Created.UnixMilli(), is.Options.Created.UnixMilli(), name)
			assert.Equal(t, was.Options.Timeout, is.Options.Timeout, name)
			assert.Equal(t, was.Options.Backoff, is.Options.Backoff, name)
			assert.Equal(t, 0, is.Options.Retries, name)
			assert.Len(t, is.Options.Stacktraces, 1, name)
		}
	})
}

// Numbers that a float64 does not hold come through Go as they are, whoever put
// them there; only Node itself rounds them.
func TestBigNumbers(t *testing.T) {
	const exact = `{"id":9007199254740993,"n":12345678901234567890123,"f":0.10000000000000000001}`
	w := newWorld(t)
	w.eachLayout(t, "numbers", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		job := save(t, g.CreateJob(json.RawMessage(exact)).Retries(1))
		require.NoError(t, g.Drain(t.Context(), 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if job.Options.Retries > 0 {
				return nil, errors.New("once more")
			}
			return job.Data, nil
		}))
		is := s.record(t, job.ID)
		assert.Equal(t, exact, string(is.Data))
		assert.Equal(t, exact, string(is.Result))
		read := decode[map[string]float64](t, n.job(t, job.ID).Data)
		assert.InDelta(t, 9007199254740992, read["id"], 2)
	})
}

// What has no data has `{}`, on both sides.
func TestNoData(t *testing.T) {
	w := newWorld(t)
	w.eachLayout(t, "nothing", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		assert.Equal(t, `{}`, string(g.get(t, n.save(t, nodeJob{})).Data))
		assert.JSONEq(t, `{}`, string(n.job(t, save(t, g.CreateJob(nil)).ID).Data))
	})
}

// The record of a job that one side made is, but for the order of its fields,
// what the other side would have written.
func TestSameRecord(t *testing.T) {
	due := nextYear()
	w := newWorld(t)
	w.eachLayout(t, "same", func(t *testing.T, s *site) {
		g, n := s.goQueue(t), s.nodeQueue(t, nil)
		for _, c := range []struct {
			name string
			ours *beequeue.Job
			job  nodeJob
		}{
			{"nothing", g.CreateJob(nil), nodeJob{}},
			{"data", g.CreateJob([]int{1, 2}), nodeJob{Data: []int{1, 2}}},
			{
				"all options",
				g.CreateJob("x").Retries(3).Timeout(1500*time.Millisecond).Backoff(beequeue.Exponential, time.Second).DelayUntil(due),
				nodeJob{Data: "x", Retries: 3, Timeout: 1500, Backoff: &nodeBackoff{"exponential", 1000}, DelayUntil: due.UnixMilli()},
			},
		} {
			save(t, c.ours)
			theirs := n.save(t, c.job)
			want, got := s.record(t, theirs), s.record(t, c.ours.ID)
			want.Options["timestamp"], got.Options["timestamp"] = nil, nil
			assert.JSONEq(t, text(t, want), text(t, got), c.name)
		}
	})
}
