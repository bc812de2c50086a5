package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The scanner reads records as encoding/json does: those of a table, and records with
// one byte changed or missing.
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
		j, err := decode(record)
		require.Empty(t, fromReference(j, err, record), "%.200q", record)
		require.Equal(t, json.Valid([]byte(record)), Valid([]byte(record)), "%.200q", record)
	}
}

// oddRecords returns records that are hard to read or cannot be read.
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

// fromReference says how a decoded record differs from what encoding/json makes of it.
// It returns the empty string if it does not differ.
func fromReference(j *job, err error, record string) string {
	want, wantErr := decodeReference(record)
	if (err != nil) != (wantErr != nil) {
		return fmt.Sprintf("the error is %v and should be %v", err, wantErr)
	}
	if err != nil {
		if err.Error() != wantErr.Error() {
			return fmt.Sprintf("the reason is %q and should be %q", err, wantErr)
		}
		return ""
	}
	if got := placeless(j); !reflect.DeepEqual(got, want) {
		return fmt.Sprintf("it is %+v\nand should be %+v", got, want)
	}
	for name, part := range map[string][]byte{"data": j.Data, "progress": j.Progress, "result": j.Result} {
		if len(part) != cap(part) && name+string(part) != "data{}" {
			return name + " has room to append, over what is behind it"
		}
	}
	if at := j.StatusAt; at.End != 0 && at.In(record) != `"`+j.Status+`"` {
		return fmt.Sprintf("the status is not at %v", at)
	}
	if at := j.DataAt; at.In(record) != string(j.Data) && at.End+len(j.Data) != len("{}") {
		return fmt.Sprintf("the data are not at %v", at)
	}
	if at := j.ProgressAt; at.In(record) != string(j.Progress) {
		return fmt.Sprintf("the progress is not at %v", at)
	}
	return ""
}

// placeless returns a copy of a record without its extents.
func placeless(j *job) *job {
	c := *j
	c.StatusAt, c.DataAt, c.ProgressAt = Extent{}, Extent{}, Extent{}
	return &c
}

// decodeReference is the plain and slow form of Decode, with encoding/json and maps.
func decodeReference(record string) (*job, error) {
	var d referenceDecoder
	j := new(job)
	top := d.object("record", json.RawMessage(record))
	if top == nil && d.reason == "" {
		d.fail("want an object, got null")
	}
	j.Data, j.Progress, j.Result = top["data"], top["progress"], top["result"]
	if string(j.Result) == "null" {
		j.Result, j.NoResult = nil, true
	}
	if j.Data == nil {
		j.Data = json.RawMessage("{}")
	}
	j.Status = d.text("status", top["status"])
	options := d.object("options", top["options"])
	j.Options = d.options(options)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		j.Unknown = append(j.Unknown, Field{name, options[name]})
	}
	if d.reason != "" {
		return nil, errors.New(d.reason)
	}
	return j, nil
}

type referenceDecoder struct {
	reason string
}

func (d *referenceDecoder) fail(format string, args ...any) {
	if d.reason == "" {
		d.reason = fmt.Sprintf(format, args...)
	}
}

func (d *referenceDecoder) options(raw map[string]json.RawMessage) options {
	take := func(name string) json.RawMessage {
		value := raw[name]
		delete(raw, name)
		return value
	}
	var o options
	if ms := int64(d.number("timestamp", take("timestamp"))); ms > 0 {
		o.Created = time.UnixMilli(ms)
	}
	if ms := int64(d.number("delay", take("delay"))); ms > 0 {
		o.DelayUntil = time.UnixMilli(ms)
	}
	o.Retries = int(min(d.number("retries", take("retries")), math.MaxInt32))
	o.Timeout = FromMillis(d.number("timeout", take("timeout")))
	if backoff := d.object("options.backoff", take("backoff")); backoff != nil {
		o.Backoff.Strategy = d.text("options.backoff.strategy", backoff["strategy"])
		o.Backoff.Delay = FromMillis(d.number("backoff.delay", backoff["delay"]))
	}
	var traces []json.RawMessage
	if value := take("stacktraces"); absent(value) {
		return o
	} else if err := json.Unmarshal(value, &traces); err != nil {
		d.fail("options.stacktraces: want an array, got %s", Excerpt(value))
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
			d.fail("%s: want an object, got %s", name, Excerpt(raw))
		}
	}
	return fields
}

func (d *referenceDecoder) text(name string, raw json.RawMessage) string {
	var s string
	if !absent(raw) && json.Unmarshal(raw, &s) != nil {
		d.fail("%s: want a string, got %s", name, Excerpt(raw))
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
		d.fail("options.%s: want a number, got %s", name, Excerpt(raw))
		return 0
	}
	return min(max(f, 0), MaxMillis)
}
