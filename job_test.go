package beequeue_test

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// The values of setters are in Redis after Save, in Bee-Queue's form, and come back with
// GetJob.
func TestSettersAreStored(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		before := time.Now().Truncate(time.Millisecond)
		due := time.Now().Add(time.Hour).Truncate(time.Millisecond).Add(time.Microsecond)
		job := f.Save(map[string]any{"to": "mh", "n": []int{1}}, func(j *beequeue.Job) {
			j.SetID("all").Retries(3).Backoff(beequeue.Exponential, 1500*time.Microsecond).
				Timeout(time.Second + 1).DelayUntil(due)
		})
		require.Equal(t, "all", job.ID)

		var record struct {
			Data    json.RawMessage
			Options struct {
				Timestamp   int64
				Stacktraces []string
				Retries     int
				Timeout     int64
				Delay       int64
				Backoff     struct {
					Strategy string
					Delay    int64
				}
			}
			Status   string
			Progress json.RawMessage
		}
		require.NoError(t, json.Unmarshal([]byte(f.Record("all")), &record))
		require.JSONEq(t, `{"to":"mh","n":[1]}`, string(record.Data))
		require.GreaterOrEqual(t, record.Options.Timestamp, before.UnixMilli())
		require.LessOrEqual(t, record.Options.Timestamp, time.Now().UnixMilli())
		require.NotNil(t, record.Options.Stacktraces, "Node pushes to it")
		require.Empty(t, record.Options.Stacktraces)
		require.Equal(t, 3, record.Options.Retries)
		require.EqualValues(t, 1001, record.Options.Timeout, "rounded up")
		require.Equal(t, due.UnixMilli()+1, record.Options.Delay, "rounded up")
		require.Equal(t, "exponential", record.Options.Backoff.Strategy)
		require.EqualValues(t, 2, record.Options.Backoff.Delay, "rounded up")
		require.Equal(t, "created", record.Status)
		require.Equal(t, "0", string(record.Progress))

		got := f.Lookup("all")
		require.Equal(t, job.ID, got.ID)
		require.JSONEq(t, string(job.Data), string(got.Data))
		require.Equal(t, beequeue.StatusCreated, got.Status)
		require.Equal(t, 3, got.Options.Retries)
		require.Equal(t, 1001*time.Millisecond, got.Options.Timeout)
		require.Equal(t, beequeue.Backoff{Strategy: beequeue.Exponential, Delay: 2 * time.Millisecond}, got.Options.Backoff)
		require.True(t, got.Options.Created.Equal(job.Options.Created))
		require.Equal(t, due.UnixMilli()+1, got.Options.DelayUntil.UnixMilli())
	})
}

// A job without settings has the fields that Node writes, and no others.
func TestPlainRecord(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.Save(nil)
	want := `{"data":{},"options":{"timestamp":` + strconv.Itoa(int(job.Options.Created.UnixMilli())) + `,"stacktraces":[]},"status":"created","progress":0}`
	require.Equal(t, want, f.Record(job.ID))
}

// The first error of a setter is kept until Save, and nothing is stored.
func TestSetterErrors(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	far := time.UnixMilli(1<<53 + 1)
	for name, c := range map[string]struct {
		set  func(*beequeue.Job) *beequeue.Job
		want string
		is   error
	}{
		"empty id":           {func(j *beequeue.Job) *beequeue.Job { return j.SetID("") }, "SetID: id is empty", nil},
		"negative retries":   {func(j *beequeue.Job) *beequeue.Job { return j.Retries(-1) }, "Retries: -1 is negative", nil},
		"negative timeout":   {func(j *beequeue.Job) *beequeue.Job { return j.Timeout(-time.Second) }, "Timeout: -1s is negative", nil},
		"unknown backoff":    {func(j *beequeue.Job) *beequeue.Job { return j.Backoff("odd", time.Second) }, `unknown backoff strategy "odd"`, beequeue.ErrUnknownBackoff},
		"no backoff":         {func(j *beequeue.Job) *beequeue.Job { return j.Backoff("", time.Second) }, `unknown backoff strategy ""`, beequeue.ErrUnknownBackoff},
		"fixed, no delay":    {func(j *beequeue.Job) *beequeue.Job { return j.Backoff(beequeue.Fixed, 0) }, "delay 0s is not positive", nil},
		"exponential, minus": {func(j *beequeue.Job) *beequeue.Job { return j.Backoff(beequeue.Exponential, -1) }, "is not positive", nil},
		"delay too far":      {func(j *beequeue.Job) *beequeue.Job { return j.DelayUntil(far) }, "too far away", nil},
		"the first counts":   {func(j *beequeue.Job) *beequeue.Job { return j.Retries(-7).Timeout(-1).Retries(1) }, "Retries: -7", nil},
	} {
		err := c.set(f.CreateJob(1)).Save(queuetest.Bounded(t))
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, `beequeue: save job "`, name)
		if c.is != nil {
			require.ErrorIs(t, err, c.is, name)
		}
	}
	require.Zero(t, f.Number("EXISTS", "jobs"))
	require.Zero(t, f.Number("EXISTS", "id"), "no id is used up")
}

func TestDataThatCannotBeMarshalled(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	for _, data := range []any{make(chan int), func() {}, math.Inf(1), brokenJSON{}} {
		err := f.CreateJob(data).Save(queuetest.Bounded(t))
		require.ErrorContains(t, err, "marshal data", "%T", data)
	}
	var unsupported *json.UnsupportedTypeError
	require.ErrorAs(t, f.CreateJob(make(chan int)).Save(queuetest.Bounded(t)), &unsupported)
	require.Zero(t, f.Number("EXISTS", "jobs"))
}

type brokenJSON struct{}

func (brokenJSON) MarshalJSON() ([]byte, error) { return nil, queuetest.ErrBroken }

// Any JSON is data. The handler gets what was saved.
func TestDataOfAllKinds(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		type person struct {
			Name string `json:"name"`
			Age  int    `json:"age,omitempty"`
		}
		for name, c := range map[string]struct {
			data any
			want string
		}{
			"nil":           {nil, `{}`},
			"empty object":  {struct{}{}, `{}`},
			"empty array":   {[]int{}, `[]`},
			"nil pointer":   {(*person)(nil), `null`},
			"text":          {"mh", `"mh"`},
			"odd text":      {"é\x00\n\"<&>\u2028𝄞", `"é\u0000\n\"<&>\u2028𝄞"`},
			"number":        {0, `0`},
			"large integer": {int64(math.MaxInt64), `9223372036854775807`},
			"float":         {1.5e-300, `1.5e-300`},
			"false":         {false, `false`},
			"struct":        {person{Name: "mh"}, `{"name":"mh"}`},
			"raw":           {json.RawMessage(`{"b":1,"a":[],"c":{}}`), `{"b":1,"a":[],"c":{}}`},
			"deep":          {json.RawMessage(strings.Repeat("[", 1000) + strings.Repeat("]", 1000)), strings.Repeat("[", 1000) + strings.Repeat("]", 1000)},
			"a megabyte":    {strings.Repeat("x", 1<<20), `"` + strings.Repeat("x", 1<<20) + `"`},
		} {
			job := f.Save(c.data)
			got := make(chan string, 1)
			queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
				got <- string(job.Data)
				return job.Data, nil
			})
			same(t, c.want, <-got, name)
			result, err := job.Wait(queuetest.Bounded(t))
			require.NoError(t, err, name)
			if c.want != "null" {
				same(t, c.want, string(result), name+", as result")
			}
			same(t, c.want, string(f.Lookup(job.ID).Data), name+", stored")
		}
	})
}

// same compares JSON without showing a megabyte of it.
func same(t *testing.T, want, got, name string) {
	t.Helper()
	var w, g any
	require.NoError(t, json.Unmarshal([]byte(want), &w), name)
	require.NoError(t, json.Unmarshal([]byte(got), &g), name)
	require.True(t, assert.ObjectsAreEqual(w, g), "%s: want %.100s, got %.100s", name, want, got)
}

func TestDecode(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.CreateJob(map[string]int{"n": 1})
	var data struct{ N int }
	require.NoError(t, job.Decode(&data))
	require.Equal(t, 1, data.N)
	var wrong struct{ N string }
	err := job.SetID("odd").Decode(&wrong)
	require.ErrorContains(t, err, `beequeue: decode data of job "odd"`)
	var typeError *json.UnmarshalTypeError
	require.ErrorAs(t, err, &typeError)
}

// Data and progress can be set without a setter. A value that is not JSON is not stored.
func TestFieldsThatAreNotJSON(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	job := f.CreateJob(1)
	job.Data = json.RawMessage("{")
	require.ErrorContains(t, job.Save(queuetest.Bounded(t)), "data is not JSON: {")
	job = f.CreateJob(1)
	job.Progress = json.RawMessage("nonsense")
	require.ErrorContains(t, job.Save(queuetest.Bounded(t)), "progress is not JSON: nonsense")
	job.Progress, job.Data = nil, json.RawMessage(` [ 1 ] `)
	require.NoError(t, job.Save(queuetest.Bounded(t)))
	require.JSONEq(t, "[1]", string(f.Lookup(job.ID).Data))
}

// A past time is no delay, also if it passes between setter and Save.
func TestDelayInThePast(t *testing.T) {
	t.Parallel()
	f := queuetest.Open(t, queuetest.Mini, beequeue.Config{})
	for name, at := range map[string]time.Time{
		"zero":    {},
		"past":    time.Now().Add(-time.Hour),
		"ancient": time.Unix(-1, 0),
		"now":     time.Now(),
	} {
		job := f.Save(nil, func(j *beequeue.Job) { j.DelayUntil(time.Now().Add(time.Hour)).DelayUntil(at) })
		f.RequireState(job.ID, beequeue.StateWaiting)
		require.NotContains(t, f.Record(job.ID), `"delay"`, name)
	}
	soon := time.Now().Add(20 * time.Millisecond)
	job := f.CreateJob(nil).DelayUntil(soon)
	queuetest.Await(t, "the due time", func() bool { return time.Now().After(soon) })
	require.NoError(t, job.Save(queuetest.Bounded(t)))
	f.RequireState(job.ID, beequeue.StateWaiting)
}

// The setters do without a queue, as tests of handlers may use them.
func TestSettersWithoutQueue(t *testing.T) {
	t.Parallel()
	job := (&beequeue.Job{ID: "1"}).Retries(2).Backoff(beequeue.Fixed, time.Second).Backoff("own", time.Second)
	require.Equal(t, 2, job.Options.Retries)
	require.ErrorContains(t, job.Save(t.Context()), "not made by CreateJob")
}
