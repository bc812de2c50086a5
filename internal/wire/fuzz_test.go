package wire

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

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
		if Valid([]byte(record)) != json.Valid([]byte(record)) {
			t.Fatal("whether it is JSON is not what encoding/json says")
		}
		j, err := decode(record)
		if difference := fromReference(j, err, record); difference != "" {
			t.Fatal(difference)
		}
		if err != nil {
			if reason := err.Error(); reason == "" || len(reason) > 500 {
				t.Fatalf("not a useful error: %v", err)
			}
			return
		}
		if !json.Valid([]byte(record)) {
			t.Fatal("read what is no JSON")
		}
		encoded := j.encode()
		if !json.Valid([]byte(encoded)) {
			t.Fatalf("wrote what is no JSON: %q", encoded)
		}
		again, err := decode(encoded)
		if err != nil {
			t.Fatalf("cannot read what it wrote, %q: %v", encoded, err)
		}
		if !reflect.DeepEqual(placeless(j), placeless(again)) {
			t.Fatalf("read %+v\nwrote %q\nread %+v", j, encoded, again)
		}
		// Unknown options are unchanged, byte for byte.
		var before struct{ Options map[string]json.RawMessage }
		if json.Unmarshal([]byte(record), &before) != nil || countFold(record) {
			return // several fields named options, in some case
		}
		for _, unknown := range again.Unknown {
			if string(before.Options[unknown.Name]) != string(unknown.Value) {
				t.Fatalf("options.%q was %q and is %q", unknown.Name, before.Options[unknown.Name], unknown.Value)
			}
			delete(before.Options, unknown.Name)
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

func nested(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }

// countFold reports whether encoding/json could take another field for `options`,
// because it ignores case when it fills a struct.
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
