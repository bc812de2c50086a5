package interop_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// goldenFile has records as Node writes them. The fuzz tests of beequeue start from
// them.
const goldenFile = "../internal/wire/testdata/node-records.json"

// goldenRecord is a job's record, in the text that Node stored.
type goldenRecord struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Record string `json:"record"`
}

// golden is a record to have Node make.
type golden struct {
	name   string
	job    nodeJob
	kind   string // of the handler that runs it; "" leaves it as it was saved
	how    map[string]any
	place  string // where it is in the end
	status beequeue.Status
	traces int
}

// stack is one such as Node's errors have, with no machine's paths in it.
const stack = `Error: no route to "mäh"
    at send (/app/push.js:10:11)
    at /app/worker.js:7:22
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)`

func goldens() []golden {
	const (
		hour = 3_600_000
		due  = 4_102_444_800_000 // the year 2100
	)
	push := map[string]any{"target": "mh", "body": "hi mh", "tags": []string{}, "extra": map[string]any{}}
	failing := map[string]any{"message": "no route", "stack": stack}
	return []golden{
		{name: "created", job: nodeJob{Data: push}, place: "waiting", status: "created"},
		{name: "created without data", place: "waiting", status: "created"},
		{name: "created with an id", job: nodeJob{ID: "user:münch/{7} 8", Data: "x"}, place: "waiting", status: "created"},
		{name: "created with unicode", job: nodeJob{Data: "ü ☃ 𝄞 \u2028 \u0000 \" \\ <&>"}, place: "waiting", status: "created"},
		{name: "created with numbers", job: nodeJob{Data: []any{1 << 60, 1e21, 1e-7, 5e-324, -0.5}}, place: "waiting", status: "created"},
		{name: "created with options unknown to Bee-Queue", place: "waiting", status: "created", job: nodeJob{
			Options: map[string]any{"tenant": "münch", "tags": []string{}, "nested": map[string]any{"n": 1}, "none": nil},
		}},
		{name: "delayed", job: nodeJob{Data: push, DelayUntil: due}, place: "delayed", status: "created"},
		{name: "retries and backoff", place: "waiting", status: "created", job: nodeJob{
			Data: push, Retries: 3, Backoff: &nodeBackoff{"exponential", 1000},
		}},
		{name: "backoff without delay", job: nodeJob{Retries: 1, Backoff: &nodeBackoff{Strategy: "immediate"}}, place: "waiting", status: "created"},
		{name: "backoff of the user's own", job: nodeJob{Retries: 1, Backoff: &nodeBackoff{"linear", 5}}, place: "waiting", status: "created"},
		{name: "timeout", job: nodeJob{Data: push, Timeout: 10_000}, place: "waiting", status: "created"},
		{
			name: "retrying, fixed", job: nodeJob{Data: push, Retries: 2, Backoff: &nodeBackoff{"fixed", hour}},
			kind: "fail", how: failing, place: "delayed", status: "retrying", traces: 1,
		},
		{
			name: "retrying, exponential", job: nodeJob{Data: push, Retries: 1, Backoff: &nodeBackoff{"exponential", hour}},
			kind: "fail", how: failing, place: "delayed", status: "retrying", traces: 1,
		},
		{name: "failed", job: nodeJob{Data: push}, kind: "fail", how: failing, place: "failed", status: "failed", traces: 1},
		{
			name: "failed after retries", job: nodeJob{Data: push, Retries: 2},
			kind: "failTimes", how: map[string]any{"times": 3, "message": "no route, run"}, place: "failed", status: "failed", traces: 3,
		},
		{name: "failed by its timeout", job: nodeJob{Timeout: 20}, kind: "hang", place: "failed", status: "failed", traces: 1},
		{
			name: "failed with something that is no Error", kind: "throwValue", how: map[string]any{"value": map[string]any{"code": 7}},
			place: "failed", status: "failed", traces: 1,
		},
		{name: "succeeded", job: nodeJob{Data: push}, kind: "echo", place: "succeeded", status: "succeeded"},
		{
			name: "succeeded after a retry", job: nodeJob{Data: push, Retries: 2},
			kind: "failTimes", how: map[string]any{"times": 1, "stack": stack}, place: "succeeded", status: "succeeded", traces: 1,
		},
		{
			name: "succeeded after its delay", job: nodeJob{Options: map[string]any{"delay": 1}},
			kind: "echo", place: "succeeded", status: "succeeded",
		},
		{
			name: "progress", job: nodeJob{Data: push},
			kind: "progress", how: map[string]any{"values": []any{0.5, map[string]any{"done": 3, "of": []any{}}}},
			place: "succeeded", status: "succeeded",
		},
		{
			name: "progress of a failed job", job: nodeJob{Data: push},
			kind: "progress", how: map[string]any{"values": []any{"half"}, "fail": true, "message": "no route", "stack": stack},
			place: "failed", status: "failed", traces: 1,
		},
	}
}

// TestGoldenRecords has Node make records of all kinds, and compares them with
// those in goldenFile; with -update, it writes them there. Go reads each as it is.
func TestGoldenRecords(t *testing.T) {
	// Stacks of Node's own errors would have this machine's paths in them.
	w := newWorld(t, "--stack-trace-limit=0")
	made := make([]goldenRecord, len(goldens()))
	t.Run("make", func(t *testing.T) {
		for i, c := range goldens() {
			s := site{world: w, queue: c.name, nodeName: "{" + c.name + "}", keys: "bq:{" + c.name + "}:"}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				id, text := s.make(t, c, int64(i))
				made[i] = goldenRecord{c.name, id, text}
			})
		}
	})
	if t.Failed() {
		return
	}
	got := goldenText(t, made)
	if *update {
		require.NoError(t, os.WriteFile(goldenFile, got, 0o644)) //nolint:gosec // nothing secret
	}
	want, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got), "Node's records have changed: run with -update and look at the difference")
}

// make has Node make one record, with a time that is the same each day.
func (s *site) make(t *testing.T, c golden, second int64) (id, record string) {
	t.Helper()
	g, n := s.goQueue(t), s.nodeQueue(t, settings{"activateDelayedJobs": true, "delayedDebounce": 1})
	created := 1_700_000_000_000 + 1000*second
	options := map[string]any{"timestamp": created}
	maps.Copy(options, c.job.Options)
	c.job.Options = options
	id = n.save(t, c.job)
	if c.kind != "" {
		n.process(t, 1, c.kind, c.how)
	}
	s.awaitPlace(t, id, c.place)
	s.checkPlaces(t)

	job := g.get(t, id)
	assert.Equal(t, c.status, job.Status)
	assert.Len(t, job.Options.Stacktraces, c.traces)
	assert.Equal(t, time.UnixMilli(created), job.Options.Created)
	if c.job.Data != nil {
		assert.JSONEq(t, text(t, c.job.Data), string(job.Data))
	}
	return id, s.rawRecord(t, id)
}

// goldenText gives the records as they are in the file.
func goldenText(t *testing.T, records []goldenRecord) []byte {
	t.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	require.NoError(t, encoder.Encode(records))
	return b.Bytes()
}
