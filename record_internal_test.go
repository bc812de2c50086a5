package beequeue

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
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
		require.Equal(t, job, *placeless(got), name)
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

// The scanner reads records as encoding/json does: those of a table, and what is
// left when one byte of a record is another or missing.
func TestDecodeAsReference(t *testing.T) {
	t.Parallel()
	records := slices.Concat(oddRecords(), slices.Collect(maps.Values(nodeRecords(t))))
	for _, n := range []int{1, 63, 64, 65, maxDepth - 2, maxDepth - 1, maxDepth, maxDepth + 1, 10 * maxDepth} {
		arrays := strings.Repeat("[", n) + strings.Repeat("]", n)
		objects := strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)
		records = append(records, arrays, objects, strings.Repeat("[", n), strings.Repeat(`{"a":`, n))
		for _, value := range []string{arrays, objects} {
			records = append(records,
				`{"data":`+value+`}`, `{"options":{"more":`+value+`}}`, `{"data":{"a":[1,{}],"b":`+value+`}}`, `{"options":{"stacktraces":[`+value+`]}}`)
		}
	}
	for _, record := range []string{
		`{"data":{"a":"b\\\"ü\u00e9 long text"},"options":{"timestamp":1.5e3,"stacktraces":["x",null,-7],"retries":"2"},"status":"created","progress":0}`,
		` { "options" : { "backoff" : { "strategy" : "fixed" , "delay" : 10 } , "more" : true } , "status" : "failed" , "result" : [ false ] } `,
	} {
		for at := range record {
			for _, c := range []byte("\x00\x1f \n\"\\/{}[]:,.+-09aefnu\x7f\xc3\xff") {
				records = append(records, record[:at]+string([]byte{c})+record[at+1:])
			}
			records = append(records, record[:at], record[:at]+record[at+1:])
		}
	}
	for _, record := range records {
		job, err := decodeJob(nil, "x", record)
		require.Empty(t, fromReference(job, err, record), "%.200q", record)
		require.Equal(t, json.Valid([]byte(record)), valid([]byte(record)), "%.200q", record)
	}
}

// oddRecords are records that are hard to read or not to be read.
func oddRecords() []string {
	records := []string{
		" ", "{", "}", "{,}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1,,"b":2}`, `{"a":1 "b":2}`, `{1:2}`, `{"a":1}}`, `{"a":1} x`, `{'a':1}`, "\ufeff{}",
		" null ", "\t[]\n", "{\v}", "{\x00}", "{}\x00", "{\u00a0}", `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":{]}`,
		`{"data":null}`, `{"data":1,"data":null,"progress":1,"progress":2,"result":1,"result":null}`,
		`{"options":[],"options":{"retries":1}}`, `{"options":{"retries":1},"options":null}`, `{"options":{"retries":{},"retries":4}}`,
		`{"status":1,"status":"failed"}`, `{"status":null}`, `{"status":""}`, `{"status":"\u0066ailed"}`, `{"status":["failed"]}`, `{"Status":"failed"}`,
		`{"d\u0061ta":1,"\u006fptions":{"retr\u0069es":3,"\u006dore":1,"more":2},"st\u0061tus":"failed"}`,
		`{"options":{"b":1,"a":2,"":3,"b":4,"a ":5,"A":6,"ä":7,"\ud83d":8,"\ud83e":9,"\ud83d\ude00":10,"\n\"<":11}}`,
		"{\"options\":{\"\xff\":1,\"\xfe\":2,\"\ufffd\":3,\"\u2028\":4},\"\xff\":5}",
		"{\"status\":\"\xff\",\"options\":{\"stacktraces\":[\"\xc3\",\"\xed\xa0\x80\",{\"\xa0\xa0\":0}],\"backoff\":{\"strategy\":\"\xf0\"}}}",
		`{"options":{"stacktraces":[]}}`, `{"options":{"stacktraces":[ ]}}`, `{"options":{"stacktraces":["",null,"null",true,1.0,[ 1 ],{"a": "\n"}]}}`,
		`{"options":{"stacktraces":{}}}`, `{"options":{"stacktraces":"YQ=="}}`, `{"options":{"stacktraces":0}}`, `{"options":{"backoff":[]}}`,
		`{"options":{"backoff":null}}`, `{"options":{"backoff":{"strategy":null,"delay":null}}}`, `{"options":{"backoff":{"strategy":"a","strategy":"b","more":1}}}`,
		`{"options":"{}"}`, `{"options":true}`, `{"options":7}`,
	}
	for _, number := range []string{
		"0", "-0", "-", "+1", "01", "-01", "00", "1.", ".5", "0.5", "1.0", "1e", "1e+", "1e+2", "1E-2", "1e2.5", "1ee2", "0x10", "1_000", "Infinity", "NaN", "-Infinity",
		"999999999999999", "1000000000000000", "9007199254740991", "9007199254740993", "92233720368547758080", "000000000000000000001", "-5", "1e-400", "-1e400", "2147483648",
		"tru", "true", "truex", "True", "nul", "nulll", "fals", "false", "n", "t", "f",
	} {
		records = append(records, number)
		for _, form := range []string{
			`{"data":N}`, `{"progress":[N]}`, `{"options":{"timestamp":N}}`, `{"options":{"delay":N,"retries":N,"timeout":N}}`, `{"options":{"more":N}}`,
			`{"options":{"timestamp":"N","retries":" N ","timeout":"N"}}`, `{"options":{"backoff":{"delay":N}}}`, `{"status":N}`, `{"options":N}`,
		} {
			records = append(records, strings.ReplaceAll(form, "N", number))
		}
	}
	for _, text := range []string{
		`"`, `"a`, `"\"`, `"\\"`, `"\x"`, `"\u"`, `"\u12"`, `"\u123"`, `"\u12G4"`, `"\uABcd"`, `"\/\b\f\n\r\t"`, `"\ud800"`, `"\udc00\ud800"`,
		"\"\x00\"", "\"\x1f\"", "\"\x7f\"", "\"\n\"", "\"1234567\x1f\"", "\"12345678\x1f\"", "\"ü234567\x19\"", "\"1234567\\\"\"", "\"12345678", "\"1234567\\",
		`"1234567890123456789"`, `"üüüüüüüü"`, "\"\xff234567\x80\"", "\"!\"", "\"#[]^~\"",
	} {
		for _, form := range []string{
			`S`, `{"data":S}`, `{S:1}`, `{"options":{S:1}}`, `{"status":S}`, `{"options":{"retries":S}}`, `{"options":{"stacktraces":[S,S]}}`, `{"options":{"backoff":{"strategy":S}}}`,
		} {
			records = append(records, strings.ReplaceAll(form, "S", text))
		}
	}
	return records
}

// fromReference says in what a decoded record differs from what encoding/json
// makes of it.
func fromReference(job *Job, err error, record string) string {
	want, wantErr := decodeReference(nil, "x", record)
	if (err != nil) != (wantErr != nil) {
		return fmt.Sprintf("the error is %v and should be %v", err, wantErr)
	}
	if err != nil {
		reason, wantReason := err.(*RecordError).Reason, wantErr.(*RecordError).Reason //nolint:errorlint // as they are made
		if reason != wantReason {
			return fmt.Sprintf("the reason is %q and should be %q", reason, wantReason)
		}
		return ""
	}
	if got := placeless(job); !reflect.DeepEqual(got, want) {
		return fmt.Sprintf("it is %+v\nand should be %+v", got, want)
	}
	for name, part := range map[string][]byte{"data": job.Data, "progress": job.Progress, "result": job.Result} {
		if len(part) != cap(part) && name+string(part) != "data{}" {
			return name + " has room to append, over what is behind it"
		}
	}
	if at, end := job.statusAt, job.statusEnd; end != 0 && record[at:end] != `"`+string(job.Status)+`"` {
		return fmt.Sprintf("the status is not at %d to %d", at, end)
	}
	if at, end := job.dataAt, job.dataEnd; record[at:end] != string(job.Data) && end+len(job.Data) != len("{}") {
		return fmt.Sprintf("the data are not at %d to %d", at, end)
	}
	if at, end := job.progressAt, job.progressEnd; record[at:end] != string(job.Progress) {
		return fmt.Sprintf("the progress is not at %d to %d", at, end)
	}
	return ""
}

// placeless is a copy of a job that does not tell where in its record things are.
func placeless(job *Job) *Job {
	j := *job
	j.statusAt, j.statusEnd, j.dataAt, j.dataEnd, j.progressAt, j.progressEnd = 0, 0, 0, 0, 0, 0
	return &j
}

func TestStatusExtent(t *testing.T) {
	t.Parallel()
	for record, want := range map[string]string{
		`{"status":"created"}`:                                            `"created"`,
		` { "status" : "failed" , "progress" : 0 } `:                      `"failed"`,
		`{"data":{"status":"a","result":1},"status":"b"}`:                 `"b"`,
		`{"data":"\"status\":\"a\"","options":{"\u0061":1},"status":"b"}`: `"b"`,
		`{"status":"Odd","statuses":1,"Status":2,"ä":3}`:                  `"Odd"`,
		`{"options":{"result":1},"status":"retrying","Result":2}`:         `"retrying"`,

		`{}`:                             "",
		`{"status":null}`:                "",
		`{"status":""}`:                  "",
		`{"status":"a b"}`:               "",
		`{"status":"a1"}`:                "",
		`{"status":"a@"}`:                "",
		`{"status":"a["}`:                "",
		`{"status":"ä"}`:                 "",
		`{"status":"\u0061"}`:            "",
		`{"status":"a","status":"a"}`:    "",
		`{"status":null,"status":"a"}`:   "",
		`{"status":"a","result":1}`:      "",
		`{"result":null,"status":"a"}`:   "",
		`{"status":"a","r\u0065sult":1}`: "",
		`{"st\u0061tus":"a"}`:            "",
		`{"status":"a","m\u006fre":1}`:   "",
		`{"status":"a","\/":1}`:          "",
	} {
		job, err := decodeJob(nil, "x", record)
		require.NoError(t, err, record)
		require.Equal(t, want, record[job.statusAt:job.statusEnd], record)
		if want == "" {
			require.Zero(t, job.statusAt, record)
		}
	}
}

// A handler may do with the parts of its job what it likes: neither the others
// nor the record change.
func TestDecodedPartsAreApart(t *testing.T) {
	t.Parallel()
	const record = `{"data":[1],"progress":[2],"result":[3],"options":{"more":[4]}}`
	given := strings.Clone(record)
	job, err := decodeJob(nil, "x", given)
	require.NoError(t, err)
	for _, part := range []*json.RawMessage{&job.Data, &job.Progress, &job.Result, &job.unknown[0].value} {
		for i := range *part {
			(*part)[i] = 'x'
		}
		*part = append(*part, "yyyyyyyyyyyyyyyyyyyy"...)
	}
	const want = "xxxyyyyyyyyyyyyyyyyyyyy"
	for _, part := range []json.RawMessage{job.Data, job.Progress, job.Result, job.unknown[0].value} {
		require.Equal(t, want, string(part))
	}
	require.Equal(t, record, given) //nolint:testifylint // to the byte
}

// What is written without encoding/json is what it would write.
func TestAppendString(t *testing.T) {
	t.Parallel()
	texts := []string{"", "created", "no route to host: 10.0.0.1:6379", "\u2028", "ü", "\xff", "a\xc3", "\U0001F600"}
	for c := range 256 {
		texts = append(texts, string([]byte{byte(c)}), "text"+string([]byte{byte(c)})+"text", string(rune(c)))
	}
	for _, text := range texts {
		want, err := json.Marshal(text)
		require.NoError(t, err)
		require.Equal(t, string(want), string(appendString(nil, text)), "%q", text)
		require.Equal(t, "["+string(want), string(appendString([]byte("["), text)), "%q", text)
		var b jsonBuilder
		b.text(text)
		require.Equal(t, string(want), b.String(), "%q", text)
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
	for _, record := range oddRecords() {
		f.Add(record)
	}
	const around = `{"data":%s,"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0%s}`
	for _, data := range []string{nested(1500), `"` + strings.Repeat("x", 10_000) + `"`, "\"\xff\r\n\"", `123456789012345678901234567890e-400`, `{"status":"created"}`} {
		f.Add(fmt.Sprintf(around, data, ""))
	}
	for _, more := range []string{`,"result":null`, `,"result":1`, `,"status":"created"`, `,"Status":"failed","RESULT":2`, `,"status":"retrying","result":null`} {
		f.Add(fmt.Sprintf(around, "{}", more))
	}
	f.Fuzz(func(t *testing.T, record string) {
		if valid([]byte(record)) != json.Valid([]byte(record)) {
			t.Fatal("whether it is JSON is not what encoding/json says")
		}
		job, err := decodeJob(nil, "x", record)
		if difference := fromReference(job, err, record); difference != "" {
			t.Fatal(difference)
		}
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
		if !reflect.DeepEqual(placeless(job), placeless(again)) {
			t.Fatalf("read %+v\nwrote %q\nread %+v", job, encoded, again)
		}
		checkPlainSuccess(t, record)
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

// checkPlainSuccess has a job succeed as lua/turn.lua does it, by writing into its record,
// and as a whole: both records tell the same.
func checkPlainSuccess(t *testing.T, record string) {
	t.Helper()
	job, err := decodeJob(nil, "x", record)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{id: job.ID, record: record, job: job, options: job.Options}
	if !r.unchanged(job) {
		return
	}
	const result = `{"status":"failed"}`
	field := job.statusAt - len(statusName)
	patched := record[:field] + `"status":"succeeded","result":` + result + record[job.statusEnd:]
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

func nested(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }

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

// decodeReference is decodeJob as it was written first: with encoding/json and
// maps, plainly and slowly.
func decodeReference(q *Queue, id, record string) (*Job, error) {
	d := referenceDecoder{id: id}
	job := &Job{ID: id, queue: q}
	top := d.object("record", json.RawMessage(record))
	if top == nil && d.reason == "" {
		d.fail("want an object, got null")
	}
	job.Data, job.Progress, job.Result = top["data"], top["progress"], top["result"]
	if string(job.Result) == "null" {
		job.Result, job.noResult = nil, true
	}
	if job.Data == nil {
		job.Data = json.RawMessage("{}")
	}
	job.Status = Status(d.text("status", top["status"]))
	options := d.object("options", top["options"])
	job.Options = d.options(options)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		job.unknown = append(job.unknown, rawField{name, options[name]})
	}
	if d.reason != "" {
		return nil, &RecordError{ID: id, Reason: d.reason}
	}
	return job, nil
}

type referenceDecoder struct {
	id     string
	reason string
}

func (d *referenceDecoder) fail(format string, args ...any) {
	if d.reason == "" {
		d.reason = fmt.Sprintf(format, args...)
	}
}

func (d *referenceDecoder) options(raw map[string]json.RawMessage) Options {
	take := func(name string) json.RawMessage {
		value := raw[name]
		delete(raw, name)
		return value
	}
	var o Options
	if ms := int64(d.number("timestamp", take("timestamp"))); ms > 0 {
		o.Created = time.UnixMilli(ms)
	}
	if ms := int64(d.number("delay", take("delay"))); ms > 0 {
		o.DelayUntil = time.UnixMilli(ms)
	}
	o.Retries = int(min(d.number("retries", take("retries")), math.MaxInt32))
	o.Timeout = fromMillis(d.number("timeout", take("timeout")))
	if backoff := d.object("options.backoff", take("backoff")); backoff != nil {
		o.Backoff.Strategy = Strategy(d.text("options.backoff.strategy", backoff["strategy"]))
		o.Backoff.Delay = fromMillis(d.number("backoff.delay", backoff["delay"]))
	}
	var traces []json.RawMessage
	if value := take("stacktraces"); absent(value) {
		return o
	} else if err := json.Unmarshal(value, &traces); err != nil {
		d.fail("options.stacktraces: want an array, got %s", excerpt(value))
	}
	for _, trace := range traces {
		// Node stores whatever was thrown: mostly text, now and then an object.
		var s string
		if json.Unmarshal(trace, &s) != nil {
			s = strings.ToValidUTF8(string(trace), "\ufffd")
		}
		o.Stacktraces = append(o.Stacktraces, s)
	}
	return o
}

func (d *referenceDecoder) object(name string, raw json.RawMessage) map[string]json.RawMessage {
	if absent(raw) && name != "record" {
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		if !json.Valid(raw) {
			d.fail("%s is not JSON: %v", name, err)
		} else {
			d.fail("%s: want an object, got %s", name, excerpt(raw))
		}
	}
	return fields
}

func (d *referenceDecoder) text(name string, raw json.RawMessage) string {
	var s string
	if !absent(raw) && json.Unmarshal(raw, &s) != nil {
		d.fail("%s: want a string, got %s", name, excerpt(raw))
	}
	return s
}

func (d *referenceDecoder) number(name string, raw json.RawMessage) float64 {
	var f float64
	var s string
	if json.Unmarshal(raw, &s) == nil && s != "" {
		raw = json.RawMessage(s)
	}
	if !absent(raw) && json.Unmarshal(raw, &f) != nil {
		d.fail("options.%s: want a number, got %s", name, excerpt(raw))
		return 0
	}
	return min(max(f, 0), maxMillis)
}

// A success without a result says so in the record: whoever waits need not wait for
// an event that might bring one, as it might from a Node process.
func TestNoResultIsTold(t *testing.T) {
	read := func(record string) *Job {
		job, err := decodeJob(nil, "7", record)
		require.NoError(t, err)
		return job
	}
	const created = `{"data":1,"options":{"timestamp":1,"stacktraces":[]},"status":"created"}`
	job := read(created)
	require.False(t, job.noResult)
	job.decide(nil, nil, nil)
	done := job.encode()
	require.Contains(t, done, `"status":"succeeded","result":null`)

	again := read(done)
	require.True(t, again.noResult)
	require.Nil(t, again.Result)
	require.Zero(t, again.statusAt, "a record that has a result is written as a whole")
	again.decide(nil, errors.New("broken"), nil)
	require.NotContains(t, again.encode(), "result")

	node := read(strings.Replace(created, "created", "succeeded", 1))
	require.False(t, node.noResult)
	require.NotContains(t, node.encode(), "result")
}
