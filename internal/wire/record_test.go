package wire

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nodeRecords returns records that Node's Bee-Queue wrote, by name.
func nodeRecords(tb testing.TB) map[string]string {
	tb.Helper()
	raw, err := os.ReadFile("testdata/node-records.json")
	require.NoError(tb, err)
	var list []struct{ Name, ID, Record string }
	require.NoError(tb, json.Unmarshal(raw, &list))
	records := make(map[string]string)
	for _, r := range list {
		records[r.Name] = r.Record
	}
	require.NotEmpty(tb, records)
	return records
}

// A record that Node wrote says the same after beequeue has rewritten it.
func TestNodeRecordsSurvive(t *testing.T) {
	t.Parallel()
	for name, record := range nodeRecords(t) {
		j, err := decode(record)
		require.NoError(t, err, name)
		var before, after map[string]any
		require.NoError(t, json.Unmarshal([]byte(record), &before), name)
		require.NoError(t, json.Unmarshal([]byte(j.encode()), &after), name)
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
				continue // beequeue leaves it out
			}
			if traces, ok := value.([]any); option == "stacktraces" && ok {
				for i, trace := range traces {
					if _, ok := trace.(string); !ok { // something other than an Error was thrown
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
	for name, j := range map[string]job{
		"plain": {Data: json.RawMessage(`{}`), Status: "created", Progress: json.RawMessage("0"), Options: options{Created: at}},
		"all": {
			Data: json.RawMessage(`[1,"é",null]`), Status: statusRetrying, Progress: json.RawMessage(`{"a":[]}`), Result: json.RawMessage(`7`),
			Options: options{
				Created: at, Retries: 3, Timeout: time.Minute, DelayUntil: at.Add(time.Hour),
				Backoff: backoff{Strategy: "own", Delay: time.Second}, Stacktraces: []string{"b\n\"<&>\u2028", "a"},
			},
			Rest: Rest{Unknown: []Field{{"a b", json.RawMessage(`1e400`)}, {"zz", json.RawMessage(`{"x":[]}`)}}},
		},
		"no result":  {Data: json.RawMessage(`0`), Status: "succeeded", Options: options{Created: at}, Rest: Rest{NoResult: true}},
		"last retry": {Data: json.RawMessage(`0`), Status: statusRetrying, Options: options{Created: at}},
		"long":       {Data: json.RawMessage(`0`), Options: options{Timeout: 300 * 24 * time.Hour, Backoff: backoff{"fixed", 1234567890123 * time.Millisecond}}},
	} {
		record := j.encode()
		require.True(t, json.Valid([]byte(record)), record)
		got, err := decode(record)
		require.NoError(t, err, name)
		require.Equal(t, j, *placeless(got), name)
		require.Equal(t, record, got.encode(), name)
	}
	// Fields are written when Node writes them.
	require.Contains(t, (&job{Status: statusRetrying, Data: json.RawMessage("1")}).encode(), `"retries":0`)
	require.NotContains(t, (&job{Status: "created", Data: json.RawMessage("1")}).encode(), "retries")
}

// Any JSON number counts, as it does in Node.
func TestRecordNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]options{
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
		`"delay":9007199254740992`:       {DelayUntil: time.UnixMilli(MaxMillis)},
		`"delay":1e300`:                  {DelayUntil: time.UnixMilli(MaxMillis)},
		`"backoff":{}`:                   {},
		`"backoff":{"strategy":"fixed"}`: {Backoff: backoff{Strategy: "fixed"}},
		`"backoff":{"delay":1}`:          {Backoff: backoff{Delay: time.Millisecond}},
		`"backoff":{"strategy":"exponential","delay":1e18}`: {Backoff: backoff{"exponential", math.MaxInt64}},
		`"stacktraces":[]`:               {},
		`"stacktraces":["a",{"b":1}, 2]`: {Stacktraces: []string{"a", `{"b":1}`, "2"}},
	} {
		j, err := decode(`{"options":{` + text + `}}`)
		require.NoError(t, err, text)
		require.Equal(t, want, j.Options, text)
	}
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
		j, err := decode(record)
		require.NoError(t, err, record)
		require.Equal(t, want, j.StatusAt.In(record), record)
		if want == "" {
			require.Zero(t, j.StatusAt, record)
		}
	}
}

// A handler may overwrite one part of its job, or append to it: neither the other parts
// nor the record change.
func TestDecodedPartsAreApart(t *testing.T) {
	t.Parallel()
	const record = `{"data":[1],"progress":[2],"result":[3],"options":{"more":[4]}}`
	given := strings.Clone(record)
	j, err := decode(given)
	require.NoError(t, err)
	for _, part := range []*json.RawMessage{&j.Data, &j.Progress, &j.Result, &j.Unknown[0].Value} {
		for i := range *part {
			(*part)[i] = 'x'
		}
		*part = append(*part, "yyyyyyyyyyyyyyyyyyyy"...)
	}
	const want = "xxxyyyyyyyyyyyyyyyyyyyy"
	for _, part := range []json.RawMessage{j.Data, j.Progress, j.Result, j.Unknown[0].Value} {
		require.Equal(t, want, string(part))
	}
	require.Equal(t, record, given) //nolint:testifylint // to the byte
}
