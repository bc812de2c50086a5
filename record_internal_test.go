package beequeue

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nodeRecords are records that Node's Bee-Queue wrote.
func nodeRecords(tb testing.TB) map[string]string {
	tb.Helper()
	raw, err := os.ReadFile("testdata/node-records.json")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(tb, err)
	var list []struct{ Name, ID, Record string }
	require.NoError(tb, json.Unmarshal(raw, &list))
	records := make(map[string]string)
	for _, r := range list {
		records[r.Name] = r.Record
	}
	return records
}

// What Node wrote, and beequeue rewrites, says the same as before.
func TestNodeRecordsSurvive(t *testing.T) {
	t.Parallel()
	for name, record := range nodeRecords(t) {
		job, err := decodeJob(nil, "1", record)
		require.NoError(t, err, name)
		var before, after map[string]any
		require.NoError(t, json.Unmarshal([]byte(record), &before), name)
		require.NoError(t, json.Unmarshal([]byte(job.encode()), &after), name)
		for _, field := range []string{"data", "status", "progress"} {
			require.Equal(t, before[field], after[field], "%s: %s", name, field)
		}
		options, _ := before["options"].(map[string]any)
		for option, value := range options {
			got := after["options"].(map[string]any)[option]
			if backoff, ok := value.(map[string]any); option == "backoff" && ok && backoff["delay"] == nil {
				backoff["delay"] = 0.0 // Node leaves it out of immediate
			}
			if value == 0.0 && got == nil {
				continue // what we leave out
			}
			if traces, ok := value.([]any); option == "stacktraces" && ok {
				for i, trace := range traces {
					if _, ok := trace.(string); !ok { // what was thrown was no Error
						text, _ := json.Marshal(trace)
						traces[i] = string(text)
					}
				}
			}
			require.Equal(t, value, got, "%s: options.%s", name, option)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1700000000123)
	for name, job := range map[string]Job{
		"plain": {Data: json.RawMessage(`{}`), Status: StatusCreated, Progress: json.RawMessage("0"), Options: Options{Created: at}},
		"all": {
			Data: json.RawMessage(`[1,"é",null]`), Status: StatusRetrying, Progress: json.RawMessage(`{"a":[]}`), Result: json.RawMessage(`7`),
			Options: Options{
				Created: at, Retries: 3, Timeout: time.Minute, DelayUntil: at.Add(time.Hour),
				Backoff: Backoff{Strategy: "own", Delay: time.Second}, Stacktraces: []string{"b\n\"<&>\u2028", "a"},
			},
			unknown: []rawField{{"a b", json.RawMessage(`1e400`)}, {"zz", json.RawMessage(`{"x":[]}`)}},
		},
		"last retry": {Data: json.RawMessage(`0`), Status: StatusRetrying, Options: Options{Created: at}},
		"long":       {Data: json.RawMessage(`0`), Options: Options{Timeout: 300 * 24 * time.Hour, Backoff: Backoff{Fixed, 1234567890123 * time.Millisecond}}},
	} {
		record := job.encode()
		require.True(t, json.Valid([]byte(record)), record)
		got, err := decodeJob(nil, "x", record)
		require.NoError(t, err, name)
		job.ID = "x"
		require.Equal(t, job, *got, name)
		require.Equal(t, record, got.encode(), name)
	}
	// Which field is written when, as Node's JSON has it.
	require.Contains(t, (&Job{Status: StatusRetrying, Data: json.RawMessage("1")}).encode(), `"retries":0`)
	require.NotContains(t, (&Job{Status: StatusCreated, Data: json.RawMessage("1")}).encode(), "retries")
}

// Numbers may be anything that JSON has, as they may in Node.
func TestRecordNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Options{
		`"retries":3`:                    {Retries: 3},
		`"retries":3.0`:                  {Retries: 3},
		`"retries":3e0`:                  {Retries: 3},
		`"retries":3.9`:                  {Retries: 3},
		`"retries":-3`:                   {},
		`"retries":-0`:                   {},
		`"retries":"3"`:                  {Retries: 3},
		`"retries":null`:                 {},
		`"retries":1e300`:                {Retries: math.MaxInt32},
		`"timeout":1500`:                 {Timeout: 1500 * time.Millisecond},
		`"timeout":1.5e3`:                {Timeout: 1500 * time.Millisecond},
		`"timeout":9007199254740991`:     {Timeout: math.MaxInt64},
		`"timeout":1234567890123`:        {Timeout: 1234567890123 * time.Millisecond},
		`"timeout":-1`:                   {},
		`"timestamp":1700000000123`:      {Created: time.UnixMilli(1700000000123)},
		`"timestamp":1.700000000123e12`:  {Created: time.UnixMilli(1700000000123)},
		`"timestamp":0`:                  {},
		`"delay":9007199254740992`:       {DelayUntil: time.UnixMilli(maxMillis)},
		`"delay":1e300`:                  {DelayUntil: time.UnixMilli(maxMillis)},
		`"backoff":{}`:                   {},
		`"backoff":{"strategy":"fixed"}`: {Backoff: Backoff{Strategy: Fixed}},
		`"backoff":{"delay":1}`:          {Backoff: Backoff{Delay: time.Millisecond}},
		`"backoff":{"strategy":"exponential","delay":1e18}`: {Backoff: Backoff{Exponential, math.MaxInt64}},
		`"stacktraces":[]`:               {},
		`"stacktraces":["a",{"b":1}, 2]`: {Stacktraces: []string{"a", `{"b":1}`, "2"}},
	} {
		job, err := decodeJob(nil, "x", `{"options":{`+text+`}}`)
		require.NoError(t, err, text)
		require.Equal(t, want, job.Options, text)
	}
}

func TestMillis(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000, math.MaxInt64: 9223372036855,
	} {
		require.Equal(t, want, millis(d), d)
	}
	for ms, want := range map[float64]time.Duration{
		0: 0, 1: time.Millisecond, 9223372036854: math.MaxInt64, 9223372036853: 9223372036853 * time.Millisecond, maxMillis: math.MaxInt64,
	} {
		require.Equal(t, want, fromMillis(ms), ms)
	}
	require.EqualValues(t, 1700000000124, dueMillis(time.UnixMilli(1700000000123).Add(1)))
	require.EqualValues(t, 1700000000123, dueMillis(time.UnixMilli(1700000000123)))
}

// Exponential doubles what is stored, up to a bound, as often as it is used.
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

// The message of a failure is taken out of what Node stored.
func TestMessageOf(t *testing.T) {
	t.Parallel()
	for stack, want := range map[string]string{
		"":                     "",
		"broken":               "broken",
		"two\nlines, no stack": "two\nlines, no stack",
		"Error: broken\n    at f (/a.js:1:2)\n    at g":         "broken",
		"TypeError: x is not\n    at f":                         "x is not",
		"Error: a: b\nc\n    at f":                              "a: b\nc",
		"Custom broken\n    at f":                               "Custom broken",
		"Error\n    at f":                                       "Error",
		"http: broken\n    at f":                                "http: broken",
		"panic: oh no\n\ngoroutine 7 [running]:\nmain.main()\n": "panic: oh no",
	} {
		require.Equal(t, want, messageOf(stack), stack)
	}
}

func TestEventRoundTrip(t *testing.T) {
	t.Parallel()
	for _, e := range []event{
		{ID: "1", Name: "succeeded"},
		{ID: "é\"\n", Name: "progress", Data: json.RawMessage(`{"a":[1,2]}`)},
		{ID: "x", Name: "failed", Data: json.RawMessage(`"broken"`)},
	} {
		message := encodeEvent(e.ID, e.Name, e.Data)
		require.True(t, json.Valid([]byte(message)), message)
		got, err := decodeEvent(message)
		require.NoError(t, err)
		require.Equal(t, e, got)
	}
}

func FuzzDecodeJob(f *testing.F) {
	for _, record := range nodeRecords(f) {
		f.Add(record)
	}
	for _, record := range []string{
		``, `{}`, `null`, `[]`, `{"data":1,"options":{"timestamp":1,"stacktraces":["a",{}],"retries":0},"status":"retrying","progress":{"x":[]}}`,
		`{"options":{"timeout":0.1,"delay":1.5,"backoff":{"strategy":"fixed","delay":1234567890123.4}}}`,
		`{"options":{"priority":1,"PRIORITY":2,"retries":1e9},"result":null,"more":1}`, `{"options":{"timestamp":9e99}}`,
		"{\"data\":\"\xff\",\"options\":{\"\xff\":\"\xfe\"}}", `{"data":1,"data":2,"options":{"a":1,"a":2}}`, ` { "data" : [ 1 , 2 ] } `,
		`{"options":{"backoff":{"strategy":"<&>","delay":-1},"stacktraces":null,"timeout":9223372036854.5}}`,
	} {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record string) {
		job, err := decodeJob(nil, "x", record)
		if err != nil {
			var bad *RecordError
			if !errors.As(err, &bad) || bad.ID != "x" || bad.Reason == "" || len(bad.Reason) > 500 {
				t.Fatalf("not a useful error: %v", err)
			}
			return
		}
		if !json.Valid([]byte(record)) {
			t.Fatal("read what is no JSON")
		}
		encoded := job.encode()
		if !json.Valid([]byte(encoded)) {
			t.Fatalf("wrote what is no JSON: %q", encoded)
		}
		again, err := decodeJob(nil, "x", encoded)
		if err != nil {
			t.Fatalf("cannot read what it wrote, %q: %v", encoded, err)
		}
		if !reflect.DeepEqual(job, again) {
			t.Fatalf("read %+v\nwrote %q\nread %+v", job, encoded, again)
		}
		// Options it does not know are as they were, byte for byte.
		var before struct{ Options map[string]json.RawMessage }
		if json.Unmarshal([]byte(record), &before) != nil || countFold(record) {
			return // several fields named options, in some case
		}
		for _, unknown := range again.unknown {
			if string(before.Options[unknown.name]) != string(unknown.value) {
				t.Fatalf("options.%q was %q and is %q", unknown.name, before.Options[unknown.name], unknown.value)
			}
			delete(before.Options, unknown.name)
		}
		for name := range before.Options {
			switch name {
			case "timestamp", "stacktraces", "retries", "timeout", "delay", "backoff":
			default:
				t.Fatalf("options.%q is lost", name)
			}
		}
	})
}

// countFold tells whether encoding/json could take another field for `options`,
// which it does not distinguish by case in a struct.
func countFold(record string) bool {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal([]byte(record), &fields)
	n := 0
	for name := range fields {
		if strings.EqualFold(name, "options") {
			n++
		}
	}
	return n != 1 || strings.Count(record, "options") != 1
}

func FuzzDecodeEvent(f *testing.F) {
	for _, message := range []string{
		``, `{}`, `null`, `{"id":"1","event":"succeeded"}`, `{"id":1,"event":"failed","data":"x"}`, `{"id":1.5e3,"event":"progress","data":null}`,
		"{\"id\":\"\xff\",\"event\":\"\xfe\",\"data\":\"\xfd\"}", `{"id":"","event":""}`, `{"ID":"1","Event":"x"}`, ` {"id" : -0, "event":"<&>","data": [ ] } `,
	} {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message string) {
		e, err := decodeEvent(message)
		if err != nil {
			return
		}
		if e.ID == "" || e.Name == "" {
			t.Fatalf("took %q for an event", message)
		}
		encoded := encodeEvent(e.ID, e.Name, e.Data)
		if !json.Valid([]byte(encoded)) {
			t.Fatalf("wrote what is no JSON: %q", encoded)
		}
		again, err := decodeEvent(encoded)
		if err != nil {
			t.Fatalf("cannot read what it wrote, %q: %v", encoded, err)
		}
		if !reflect.DeepEqual(e, again) {
			t.Fatalf("read %+v, wrote %q, read %+v", e, encoded, again)
		}
		_ = e.public() // takes what it gets
	})
}
