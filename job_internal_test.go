package beequeue

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// A job's record holds all of the job: every field comes back.
func TestJobRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1700000000123)
	q := &Queue{}
	for name, job := range map[string]Job{
		"plain": {Data: json.RawMessage(`{}`), Status: StatusCreated, Progress: json.RawMessage("0"), Options: Options{Created: at}},
		"all": {
			Data: json.RawMessage(`[1]`), Status: StatusRetrying, Progress: json.RawMessage(`{"a":[]}`), Result: json.RawMessage(`7`),
			Options: Options{
				Created: at, Retries: 3, Timeout: time.Minute, DelayUntil: at.Add(time.Hour),
				Backoff: Backoff{Strategy: "own", Delay: time.Second}, Stacktraces: []string{"b", "a"},
			},
			read: wire.Rest{Unknown: []wire.Field{{Name: "more", Value: json.RawMessage(`1e400`)}}},
		},
		"no result":  {Data: json.RawMessage(`0`), Status: StatusSucceeded, read: wire.Rest{NoResult: true}},
		"last retry": {Data: json.RawMessage(`0`), Status: StatusRetrying, Options: Options{Created: at}},
	} {
		got, err := decodeJob(q, "x", job.encode())
		require.NoError(t, err, name)
		job.ID, job.queue = "x", q
		require.Equal(t, job, *placeless(got), name)
	}
}

// placeless returns a copy of a job that does not know where its record has what.
func placeless(job *Job) *Job {
	j := *job
	j.read.StatusAt, j.read.DataAt, j.read.ProgressAt = wire.Extent{}, wire.Extent{}, wire.Extent{}
	return &j
}

// The error of a record names the job and has the decoder's reason.
func TestRecordErrorHasTheReason(t *testing.T) {
	t.Parallel()
	for record, reason := range map[string]string{
		``:                           "record is not JSON: unexpected end of JSON input",
		`null`:                       "want an object, got null",
		`[]`:                         "record: want an object, got []",
		`{"options":[]}`:             "options: want an object, got []",
		`{"options":{"retries":{}}}`: "options.retries: want a number, got {}",
	} {
		_, err := decodeJob(nil, "x", record)
		var bad *RecordError
		require.ErrorAs(t, err, &bad, record)
		require.Equal(t, RecordError{ID: "x", Reason: reason}, *bad)
		require.EqualError(t, err, `job "x" has a malformed record: `+reason)
	}
}

// A success without a result says so in the record. So nobody waits for an event that
// might bring a result, as the event of a Node process might.
func TestNoResultIsTold(t *testing.T) {
	read := func(record string) *Job {
		job, err := decodeJob(nil, "7", record)
		require.NoError(t, err)
		return job
	}
	const created = `{"data":1,"options":{"timestamp":1,"stacktraces":[]},"status":"created"}`
	job := read(created)
	require.False(t, job.read.NoResult)
	job.decide(nil, nil, nil)
	done := job.encode()
	require.Contains(t, done, `"status":"succeeded","result":null`)

	again := read(done)
	require.True(t, again.read.NoResult)
	require.Nil(t, again.Result)
	require.Zero(t, again.read.StatusAt, "a record that has a result is written whole")
	again.decide(nil, errors.New("broken"), nil)
	require.NotContains(t, again.encode(), "result")

	node := read(strings.Replace(created, "created", "succeeded", 1))
	require.False(t, node.read.NoResult)
	require.NotContains(t, node.encode(), "result")
}

// A plain success, which is written into the stored record, says the same as a success
// whose whole record is written.
func FuzzPlainSuccess(f *testing.F) {
	raw, err := os.ReadFile("internal/wire/testdata/node-records.json")
	require.NoError(f, err)
	var written []struct{ Record string }
	require.NoError(f, json.Unmarshal(raw, &written))
	require.NotEmpty(f, written)
	for _, w := range written {
		f.Add(w.Record)
	}
	const around = `{"data":%s,"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0%s}`
	for _, data := range []string{"{}", strings.Repeat("[", 1500) + strings.Repeat("]", 1500), "\"\xff\r\n\"", `1e-400`, `{"status":"created"}`} {
		f.Add(fmt.Sprintf(around, data, ""))
	}
	for _, more := range []string{`,"result":null`, `,"result":1`, `,"status":"created"`, `,"Status":"failed","RESULT":2`, `,"status":"retrying","result":null`, `,"st\u0061tus":"a"`} {
		f.Add(fmt.Sprintf(around, "{}", more))
	}
	for _, record := range []string{
		`{}`, `null`, `{"status":"created"}`, ` { "data" : 1 , "status" : "created" } `, `{"data":"\"status\":\"created\"","status":"retrying"}`,
		`{"data":1,"options":{"timestamp":1,"stacktraces":[],"retries":0,"more":1},"status":"retrying","progress":{"x":[]}}`,
	} {
		f.Add(record)
	}
	f.Fuzz(checkPlainSuccess)
}

// checkPlainSuccess has a job succeed in two ways: as the turn script does it, by writing
// into its record, and with the whole record. Both records must say the same.
func checkPlainSuccess(t *testing.T, record string) {
	t.Helper()
	job, err := decodeJob(nil, "x", record)
	if err != nil {
		return
	}
	r := &run{id: job.ID, record: record, job: job, options: job.Options}
	if !r.unchanged(job) {
		return
	}
	const result = `{"status":"failed"}`
	at := job.read.StatusAt
	patched := record[:at.Start-len(statusName)] + `"status":"succeeded","result":` + result + record[at.End:]
	job.decide(json.RawMessage(result), nil, nil)
	want, err := decodeJob(nil, "x", job.encode())
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeJob(nil, "x", patched)
	if err != nil {
		t.Fatalf("patched to %q: %v", patched, err)
	}
	if !reflect.DeepEqual(placeless(got), placeless(want)) {
		t.Fatalf("patched to %q, read %+v, want %+v", patched, got, want)
	}
}

// Exponential doubles the stored delay each time it is used, up to a bound.
func TestExponentialBackoffIsBounded(t *testing.T) {
	t.Parallel()
	job := &Job{Options: Options{Backoff: Backoff{Exponential, time.Second}}}
	var last time.Duration
	for range 100 {
		wait, err := job.nextBackoff(nil)
		require.NoError(t, err)
		require.GreaterOrEqual(t, wait, last)
		require.Positive(t, wait)
		last = wait
	}
	require.Equal(t, maxBackoff, last)
	// A record may say anything.
	job.Options.Backoff.Delay = math.MaxInt64
	for range 3 {
		wait, err := job.nextBackoff(nil)
		require.NoError(t, err)
		require.Positive(t, wait)
	}
	require.LessOrEqual(t, job.Options.Backoff.Delay, maxBackoff)
}

// payloads are data of jobs, named after their size: a flat object like those of most
// jobs, and a long one whose text is not all ASCII.
func payloads() map[string]string {
	var large strings.Builder
	large.WriteString(`{"rows":[`)
	for i := 0; large.Len() < 10_000-100; i++ {
		if i > 0 {
			large.WriteByte(',')
		}
		large.WriteString(`{"id":` + strconv.Itoa(1000*i) + `,"name":"Jörg Müller ` + strconv.Itoa(i) +
			`","note":"said \"soon\", and then nothing for a week","ok":true,"of":[1,2.5,null]}`)
	}
	large.WriteString(`]}`)
	return map[string]string{
		"100B": `{"to":"someone@example.org","template":"welcome","user":123456,"locale":"de","again":false,"cc":[]}`,
		"10kB": large.String(),
	}
}

// eachPayload runs a benchmark with a job of each size, as it was saved.
func eachPayload(b *testing.B, body func(b *testing.B, job *Job, record string)) {
	b.Helper()
	for _, size := range []string{"100B", "10kB"} {
		record := `{"data":` + payloads()[size] +
			`,"options":{"timestamp":1732406400000,"stacktraces":[]},"status":"created","progress":0}`
		job, err := decodeJob(nil, "1234", record)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(size, func(b *testing.B) {
			b.ReportAllocs()
			body(b, job, record)
		})
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	eachPayload(b, func(b *testing.B, _ *Job, record string) {
		b.SetBytes(int64(len(record)))
		for b.Loop() {
			if _, err := decodeJob(nil, "1234", record); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncodeRecord(b *testing.B) {
	eachPayload(b, func(b *testing.B, job *Job, record string) {
		b.SetBytes(int64(len(record)))
		for b.Loop() {
			if len(job.encode()) != len(record) {
				b.Fatal("it is not the record that was read")
			}
		}
	})
}

// The decision after a run, without the encoding.
func BenchmarkDecide(b *testing.B) {
	eachPayload(b, func(b *testing.B, job *Job, record string) {
		result := json.RawMessage(`{"ok":true}`)
		for b.Loop() {
			if err := job.repair(record); err != nil {
				b.Fatal(err)
			}
			if o := job.decide(result, nil, nil); o.status != StatusSucceeded {
				b.Fatal(errors.New(string(o.status)))
			}
		}
	})
}
