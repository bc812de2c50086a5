package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Record is a job as Bee-Queue stores it in the hash `jobs`: one JSON object with
// data, options, status and progress. beequeue adds a top-level `result` to jobs that
// succeeded, which is null if there is none. Node ignores the result, and drops it when
// it rewrites the record. So a result never outlives the run it belongs to.
//
// A Record holds the addresses of a job's fields, none of which may be nil. So the
// stored record is read into the job, and written from it, in place: a copy would cost
// an allocation for each job, or stack in every Save.
type Record struct {
	Data     *json.RawMessage // becomes `{}` if the stored record has none
	Status   *string
	Progress *json.RawMessage // may be empty, as may the result
	Result   *json.RawMessage

	// The options.
	Created     *time.Time
	Retries     *int // how many are left
	Timeout     *time.Duration
	DelayUntil  *time.Time
	Strategy    *string        // of the backoff
	Delay       *time.Duration // of the backoff
	Stacktraces *[]string      // the newest first

	Rest *Rest
}

// Rest is what a record holds besides the fields that users see. A job keeps it until
// its record is written again.
type Rest struct {
	// Unknown has the fields of options that beequeue does not know, sorted by name.
	Unknown []Field

	// NoResult means that the result is null: the run returned nothing. A record that
	// Node wrote has no result in any case, so its absence says nothing.
	NoResult bool

	// StatusAt is where the record has its status. It is empty unless the status can be
	// changed in place: a string of ASCII letters, written once, in a record without a
	// result and without escapes in the names of its fields.
	StatusAt Extent
	// DataAt and ProgressAt are where the record has its data and its progress. They are
	// empty if it has none.
	DataAt, ProgressAt Extent
}

// Field is a field of a JSON object.
type Field struct {
	Name  string
	Value json.RawMessage
}

// Extent is the part of a record from the byte at Start to the byte before End.
type Extent struct{ Start, End int }

// In returns the part of the record.
func (e Extent) In(record string) string { return record[e.Start:e.End] }

// statusRetrying is the status of a job that waits for its next try.
const statusRetrying = "retrying"

// Encode returns the record as it is stored. Like everything that a Save calls, it
// needs little stack: many goroutines save one job each, and none should have to grow
// its stack.
func (r *Record) Encode() string {
	var b jsonBuilder
	b.Grow(r.size())
	b.WriteString(`{"data":`)
	b.Write(*r.Data)
	b.WriteString(`,"options":{"timestamp":`)
	created := int64(0)
	if !r.Created.IsZero() {
		created = r.Created.UnixMilli()
	}
	b.integer(created)
	r.encodeOptions(&b)
	b.WriteString(`},"status":`)
	b.text(*r.Status)
	if len(*r.Result) > 0 {
		b.WriteString(`,"result":`)
		b.Write(*r.Result)
	} else if r.Rest.NoResult {
		b.WriteString(`,"result":null`)
	}
	if len(*r.Progress) > 0 {
		b.WriteString(`,"progress":`)
		b.Write(*r.Progress)
	}
	b.WriteByte('}')
	return b.String()
}

// size estimates the length of the encoded record in bytes.
func (r *Record) size() int {
	size := 160 + len(*r.Data) + len(*r.Progress) + len(*r.Result)
	for _, s := range *r.Stacktraces {
		size += len(s) + len(s)/8 + 4 // with its escapes
	}
	for _, f := range r.Rest.Unknown {
		size += len(f.Name) + len(f.Value) + 4
	}
	return size
}

// encodeOptions writes the options behind the timestamp.
func (r *Record) encodeOptions(b *jsonBuilder) {
	b.WriteString(`,"stacktraces":[`)
	for i, s := range *r.Stacktraces {
		if i > 0 {
			b.WriteByte(',')
		}
		b.text(s)
	}
	b.WriteByte(']')
	if *r.Retries > 0 || *r.Status == statusRetrying {
		b.WriteString(`,"retries":`)
		b.integer(int64(*r.Retries))
	}
	if *r.Timeout > 0 {
		b.WriteString(`,"timeout":`)
		b.integer(Millis(*r.Timeout))
	}
	if !r.DelayUntil.IsZero() {
		b.WriteString(`,"delay":`)
		b.integer(DueMillis(*r.DelayUntil))
	}
	if *r.Strategy != "" || *r.Delay != 0 {
		b.WriteString(`,"backoff":{"strategy":`)
		b.text(*r.Strategy)
		b.WriteString(`,"delay":`)
		b.integer(Millis(*r.Delay))
		b.WriteByte('}')
	}
	for i := range r.Rest.Unknown {
		b.WriteByte(',')
		b.text(r.Rest.Unknown[i].Name)
		b.WriteByte(':')
		b.Write(r.Rest.Unknown[i].Value)
	}
}

// Decode reads a stored record into a job whose fields are all zero. A field that is
// absent or null gets its default. Of a field that is written twice, the last counts.
// Unknown fields of options are kept. Numbers may be any JSON number, as they may in
// Node.
//
// A field of the wrong type is an error, whose text says what is wrong; the job is then
// of no use.
func (r *Record) Decode(record string) error {
	var d decoder
	var status, options []byte
	statuses, escaped := 0, false
	// The handler may write to the job's data, progress and result, so they are parts of
	// a copy.
	s := scanner{b: []byte(record)}
	if s.space() != '{' || !s.object(func(f field) {
		escaped = escaped || f.escaped
		extent := Extent{f.at, f.at + len(f.value)}
		switch string(f.name) {
		case "data":
			*r.Data, r.Rest.DataAt = f.value, extent
		case "options":
			options = f.value
		case "status":
			status, r.Rest.StatusAt = f.value, extent
			statuses++
		case "progress":
			*r.Progress, r.Rest.ProgressAt = f.value, extent
		case "result":
			*r.Result = f.value
		}
	}) || !s.end() {
		return errors.New(notARecord(s.b))
	}
	if *r.Data == nil {
		*r.Data = json.RawMessage("{}")
	}
	*r.Status = d.text("status", status)
	if statuses != 1 || escaped || *r.Result != nil || !isWord(status) {
		r.Rest.StatusAt = Extent{}
	}
	if string(*r.Result) == "null" {
		*r.Result, r.Rest.NoResult = nil, true
	}
	d.options(r, options)
	if d.reason != "" {
		return errors.New(d.reason)
	}
	return nil
}

// notARecord says why raw is not even a JSON object.
func notARecord(raw []byte) string {
	if err := json.Unmarshal(raw, new(json.RawMessage)); err != nil {
		return fmt.Sprintf("record is not JSON: %v", err)
	}
	if string(bytes.TrimSpace(raw)) == "null" {
		return "want an object, got null"
	}
	return fmt.Sprintf("record: want an object, got %s", Excerpt(raw))
}

// isWord reports whether raw is a string of ASCII letters.
func isWord(raw []byte) bool {
	if len(raw) < 3 || raw[0] != '"' {
		return false
	}
	for _, c := range raw[1 : len(raw)-1] {
		if c |= 0x20; c < 'a' || 'z' < c {
			return false
		}
	}
	return true
}

// decoder reads the parts of a record. It keeps the first complaint as the reason why
// the record cannot be read.
type decoder struct {
	reason string
}

func (d *decoder) fail(format string, args ...any) {
	if d.reason == "" {
		d.reason = fmt.Sprintf(format, args...)
	}
}

// options reads the fields that it knows and keeps the others, sorted by name.
func (d *decoder) options(r *Record, raw []byte) {
	var timestamp, delay, retries, timeout, backoff, stacktraces []byte
	d.object("options", raw, func(f field) {
		switch string(f.name) {
		case "timestamp":
			timestamp = f.value
		case "delay":
			delay = f.value
		case "retries":
			retries = f.value
		case "timeout":
			timeout = f.value
		case "backoff":
			backoff = f.value
		case "stacktraces":
			stacktraces = f.value
		default:
			r.Rest.Unknown = append(r.Rest.Unknown, Field{string(f.name), f.value})
		}
	})
	r.Rest.Unknown = lastOfEach(r.Rest.Unknown)

	if ms := int64(d.number("timestamp", timestamp)); ms > 0 {
		*r.Created = time.UnixMilli(ms)
	}
	if ms := int64(d.number("delay", delay)); ms > 0 {
		*r.DelayUntil = time.UnixMilli(ms)
	}
	*r.Retries = int(min(d.number("retries", retries), math.MaxInt32))
	*r.Timeout = FromMillis(d.number("timeout", timeout))
	d.backoff(r, backoff)
	*r.Stacktraces = d.stacktraces(stacktraces)
}

// lastOfEach sorts fields by name. Of a field that comes twice it keeps the last.
func lastOfEach(fields []Field) []Field {
	slices.SortStableFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	kept := fields[:0]
	for i, f := range fields {
		if i+1 == len(fields) || fields[i+1].Name != f.Name {
			kept = append(kept, f)
		}
	}
	return kept
}

func (d *decoder) backoff(r *Record, raw []byte) {
	var strategy, delay []byte
	d.object("options.backoff", raw, func(f field) {
		switch string(f.name) {
		case "strategy":
			strategy = f.value
		case "delay":
			delay = f.value
		}
	})
	*r.Strategy = d.text("options.backoff.strategy", strategy)
	*r.Delay = FromMillis(d.number("backoff.delay", delay))
}

func (d *decoder) stacktraces(raw []byte) []string {
	if absent(raw) {
		return nil
	}
	var traces []string
	s := scanner{b: raw}
	if !s.array(func(trace []byte) {
		// Node stores whatever was thrown: mostly text, now and then an object.
		switch {
		case trace[0] == '"':
			traces = append(traces, unquote(trace))
		case absent(trace):
			traces = append(traces, "")
		default:
			traces = append(traces, strings.ToValidUTF8(string(trace), "\ufffd")) // as it will be written
		}
	}) {
		d.fail("options.stacktraces: want an array, got %s", Excerpt(raw))
	}
	return traces
}

// object passes every field of an object to each.
func (d *decoder) object(name string, raw []byte, each func(field)) {
	s := scanner{b: raw}
	if !absent(raw) && !s.object(each) {
		d.fail("%s: want an object, got %s", name, Excerpt(raw))
	}
}

func (d *decoder) text(name string, raw []byte) string {
	switch {
	case absent(raw):
		return ""
	case raw[0] != '"':
		d.fail("%s: want a string, got %s", name, Excerpt(raw))
		return ""
	default:
		return unquote(raw)
	}
}

// number reads a number and brings it into the range from 0 to MaxMillis, which a
// float64 holds exactly. A string that holds a number counts as one, because Node's
// job.retries('2') stores it as a string.
func (d *decoder) number(name string, raw []byte) float64 {
	if n, ok := smallInteger(raw); ok {
		return n
	}
	var f float64
	var s string
	if json.Unmarshal(raw, &s) == nil && s != "" {
		raw = []byte(s)
	}
	if !absent(raw) && json.Unmarshal(raw, &f) != nil {
		d.fail("options.%s: want a number, got %s", name, Excerpt(raw))
		return 0
	}
	return min(max(f, 0), MaxMillis)
}

// smallInteger reads what almost all numbers of records are: at most 15 digits, which
// a float64 holds exactly, and nothing else.
func smallInteger(raw []byte) (float64, bool) {
	if len(raw) > 15 {
		return 0, false
	}
	n := int64(0)
	for _, c := range raw {
		if !isDigit(c) {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return float64(n), true
}
