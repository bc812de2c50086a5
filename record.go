package beequeue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The job record, as Bee-Queue stores it in the hash `jobs`: one JSON object
// with data, options, status and progress. beequeue adds a top-level `result` to
// jobs that succeeded, null where there is none. Node ignores it, and drops it when
// it rewrites the record: so a result never outlives the run it belongs to.

// rawField is one field of options that beequeue does not know.
type rawField struct {
	name  string
	value json.RawMessage
}

// encode gives the record to store. Like what else a Save calls, it keeps to a small
// part of the stack: of many goroutines that save a job each, none has its stack grown.
func (j *Job) encode() string {
	var b jsonBuilder
	b.Grow(j.recordSize())
	b.WriteString(`{"data":`)
	b.Write(j.Data)
	b.WriteString(`,"options":{"timestamp":`)
	created := int64(0)
	if !j.Options.Created.IsZero() {
		created = j.Options.Created.UnixMilli()
	}
	b.integer(created)
	j.encodeOptions(&b)
	b.WriteString(`},"status":`)
	b.text(string(j.Status))
	if len(j.Result) > 0 {
		b.WriteString(`,"result":`)
		b.Write(j.Result)
	} else if j.noResult {
		b.WriteString(`,"result":null`)
	}
	if len(j.Progress) > 0 {
		b.WriteString(`,"progress":`)
		b.Write(j.Progress)
	}
	b.WriteByte('}')
	return b.String()
}

// recordSize is about how long the record gets.
func (j *Job) recordSize() int {
	size := 160 + len(j.Data) + len(j.Progress) + len(j.Result)
	for _, s := range j.Options.Stacktraces {
		size += len(s) + len(s)/8 + 4 // with its escapes
	}
	for _, f := range j.unknown {
		size += len(f.name) + len(f.value) + 4
	}
	return size
}

// encodeOptions writes the options behind the timestamp.
func (j *Job) encodeOptions(b *jsonBuilder) {
	b.WriteString(`,"stacktraces":[`)
	for i, s := range j.Options.Stacktraces {
		if i > 0 {
			b.WriteByte(',')
		}
		b.text(s)
	}
	b.WriteByte(']')
	if j.Options.Retries > 0 || j.Status == StatusRetrying {
		b.WriteString(`,"retries":`)
		b.integer(int64(j.Options.Retries))
	}
	if j.Options.Timeout > 0 {
		b.WriteString(`,"timeout":`)
		b.integer(millis(j.Options.Timeout))
	}
	if !j.Options.DelayUntil.IsZero() {
		b.WriteString(`,"delay":`)
		b.integer(dueMillis(j.Options.DelayUntil))
	}
	if backoff := &j.Options.Backoff; *backoff != (Backoff{}) {
		b.WriteString(`,"backoff":{"strategy":`)
		b.text(string(backoff.Strategy))
		b.WriteString(`,"delay":`)
		b.integer(millis(backoff.Delay))
		b.WriteByte('}')
	}
	for i := range j.unknown {
		b.WriteByte(',')
		b.text(j.unknown[i].name)
		b.WriteByte(':')
		b.Write(j.unknown[i].value)
	}
}

// repair puts back what a handler made of the job's data or progress if it is not
// JSON, which would spoil the record, and says so. The record is the one claimed.
func (j *Job) repair(record string) error {
	var broken error
	if !valid(j.Data) {
		broken = fmt.Errorf("data set by the handler is not JSON: %s", excerpt(j.Data))
		if before, err := decodeJob(j.queue, j.ID, record); err == nil {
			j.Data = before.Data
		}
	}
	if len(j.Progress) > 0 && !valid(j.Progress) {
		broken = fmt.Errorf("progress set by the handler is not JSON: %s", excerpt(j.Progress))
		j.Progress = nil
	}
	return broken
}

// dueMillis rounds a time up to whole milliseconds, so that a job never starts
// before its time.
func dueMillis(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

// jsonBuilder is a strings.Builder, which gives its string without a copy, for
// JSON.
type jsonBuilder struct{ strings.Builder }

func (b *jsonBuilder) integer(n int64) {
	var digits [20]byte
	b.Write(strconv.AppendInt(digits[:0], n, 10))
}

func (b *jsonBuilder) text(s string) {
	if !unescaped(s) {
		b.Write(appendString(nil, s))
		return
	}
	b.WriteByte('"')
	b.WriteString(s)
	b.WriteByte('"')
}

// appendString appends s as encoding/json writes it.
func appendString(b []byte, s string) []byte {
	if !unescaped(s) {
		quoted, _ := json.Marshal(s) //nolint:errchkjson // a string always marshals
		return append(b, quoted...)
	}
	b = slices.Grow(b, len(s)+2)
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// unescaped tells whether encoding/json writes s just as it is, between quotes.
// Text that is not all ASCII may be, too, but needs a closer look.
func unescaped(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// decodeJob reads a record. What is absent or null is its default; of a field
// that is there more than once the last counts; unknown fields of options are
// kept; anything of the wrong type is a RecordError. Numbers may be any JSON
// number, as they may in Node.
func decodeJob(q *Queue, id, record string) (*Job, error) {
	var d recordDecoder
	job := &Job{ID: id, queue: q}
	var status, options []byte
	statuses, escaped := 0, false
	// The handler may write to the job's data, progress and result, so they are
	// parts of a copy.
	s := scanner{b: []byte(record)}
	if s.space() != '{' || !s.object(func(f field) {
		escaped = escaped || f.escaped
		end := f.at + len(f.value)
		switch string(f.name) {
		case "data":
			job.Data = f.value
			job.dataAt, job.dataEnd = f.at, end
		case "options":
			options = f.value
		case "status":
			status = f.value
			statuses++
			job.statusAt, job.statusEnd = f.at, end
		case "progress":
			job.Progress = f.value
			job.progressAt, job.progressEnd = f.at, end
		case "result":
			job.Result = f.value
		}
	}) || !s.end() {
		return nil, &RecordError{ID: id, Reason: notARecord(s.b)}
	}
	if job.Data == nil {
		job.Data = json.RawMessage("{}")
	}
	job.Status = Status(d.text("status", status))
	if statuses != 1 || escaped || job.Result != nil || !isWord(status) {
		job.statusAt, job.statusEnd = 0, 0
	}
	if string(job.Result) == "null" {
		job.Result, job.noResult = nil, true
	}
	d.options(job, options)
	if d.reason != "" {
		return nil, &RecordError{ID: id, Reason: d.reason}
	}
	return job, nil
}

// notARecord says why something is not even a JSON object.
func notARecord(raw []byte) string {
	if err := json.Unmarshal(raw, new(json.RawMessage)); err != nil {
		return fmt.Sprintf("record is not JSON: %v", err)
	}
	if string(bytes.TrimSpace(raw)) == "null" {
		return "want an object, got null"
	}
	return fmt.Sprintf("record: want an object, got %s", excerpt(raw))
}

// isWord tells whether raw is a string of ASCII letters.
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

// recordDecoder reads the parts of a record and keeps the first complaint.
type recordDecoder struct {
	reason string
}

func (d *recordDecoder) fail(format string, args ...any) {
	if d.reason == "" {
		d.reason = fmt.Sprintf(format, args...)
	}
}

// options reads the fields it knows and keeps the others, sorted by name.
func (d *recordDecoder) options(job *Job, raw []byte) {
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
			job.unknown = append(job.unknown, rawField{string(f.name), f.value})
		}
	})
	job.unknown = lastOfEach(job.unknown)

	o := &job.Options
	if ms := int64(d.number("timestamp", timestamp)); ms > 0 {
		o.Created = time.UnixMilli(ms)
	}
	if ms := int64(d.number("delay", delay)); ms > 0 {
		o.DelayUntil = time.UnixMilli(ms)
	}
	o.Retries = int(min(d.number("retries", retries), math.MaxInt32))
	o.Timeout = fromMillis(d.number("timeout", timeout))
	d.backoff(&o.Backoff, backoff)
	o.Stacktraces = d.stacktraces(stacktraces)
}

// lastOfEach sorts fields by name and drops those that come again.
func lastOfEach(fields []rawField) []rawField {
	slices.SortStableFunc(fields, func(a, b rawField) int { return strings.Compare(a.name, b.name) })
	kept := fields[:0]
	for i, f := range fields {
		if i+1 == len(fields) || fields[i+1].name != f.name {
			kept = append(kept, f)
		}
	}
	return kept
}

func (d *recordDecoder) backoff(b *Backoff, raw []byte) {
	var strategy, delay []byte
	d.object("options.backoff", raw, func(f field) {
		switch string(f.name) {
		case "strategy":
			strategy = f.value
		case "delay":
			delay = f.value
		}
	})
	b.Strategy = Strategy(d.text("options.backoff.strategy", strategy))
	b.Delay = fromMillis(d.number("backoff.delay", delay))
}

func (d *recordDecoder) stacktraces(raw []byte) []string {
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
		d.fail("options.stacktraces: want an array, got %s", excerpt(raw))
	}
	return traces
}

func absent(raw []byte) bool {
	return len(raw) == 0 || string(raw) == "null"
}

// object hands the fields of an object to the func.
func (d *recordDecoder) object(name string, raw []byte, each func(field)) {
	s := scanner{b: raw}
	if !absent(raw) && !s.object(each) {
		d.fail("%s: want an object, got %s", name, excerpt(raw))
	}
}

func (d *recordDecoder) text(name string, raw []byte) string {
	switch {
	case absent(raw):
		return ""
	case raw[0] != '"':
		d.fail("%s: want a string, got %s", name, excerpt(raw))
		return ""
	default:
		return unquote(raw)
	}
}

// number gives a number that is not negative and that a float64 holds exactly. A
// string that holds a number is one, as Node's job.retries('2') stores it so.
func (d *recordDecoder) number(name string, raw []byte) float64 {
	if n, ok := smallInteger(raw); ok {
		return n
	}
	var f float64
	var s string
	if json.Unmarshal(raw, &s) == nil && s != "" {
		raw = []byte(s)
	}
	if !absent(raw) && json.Unmarshal(raw, &f) != nil {
		d.fail("options.%s: want a number, got %s", name, excerpt(raw))
		return 0
	}
	return min(max(f, 0), maxMillis)
}

// smallInteger reads what almost all numbers of records are: digits alone, and
// few enough of them for a float64.
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

// excerpt shows the beginning of something that may be large or not text.
func excerpt(raw []byte) string {
	const most = 60
	if len(raw) > most {
		return strings.ToValidUTF8(string(raw[:most]), "?") + "…"
	}
	return strings.ToValidUTF8(string(raw), "?")
}

// event is one message on the channel `events`.
type event struct {
	ID   string
	Name string
	Data json.RawMessage

	end    error // of a job that failed for good, as its waiters get it
	unsure bool  // the job's record says nothing of a result
}

// ended tells whether it is the last of a job's events.
func (e event) ended() bool { return e.Name == eventSucceeded || e.Name == eventFailed }

// encodeEvent gives the message that tells other processes of a job. Data may
// be nil.
func encodeEvent(id, name string, data json.RawMessage) string {
	var b jsonBuilder
	b.Grow(48 + len(id) + len(data))
	b.WriteString(`{"id":`)
	b.text(id)
	b.WriteString(`,"event":`)
	b.text(name)
	if len(data) > 0 {
		b.WriteString(`,"data":`)
		b.Write(data)
	}
	b.WriteByte('}')
	return b.String()
}

// decodeEvent reads a message of the channel `events`. Ids are strings; a
// number is taken as its text.
func decodeEvent(message string) (event, error) {
	var raw struct {
		ID   json.RawMessage `json:"id"`
		Name string          `json:"event"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal([]byte(message), &raw); err != nil {
		return event{}, fmt.Errorf("not an event: %w", err)
	}
	e := event{Name: raw.Name, Data: raw.Data}
	if bytes.HasPrefix(raw.ID, []byte(`"`)) {
		if err := json.Unmarshal(raw.ID, &e.ID); err != nil {
			return event{}, fmt.Errorf("id: %w", err)
		}
	} else if _, err := strconv.ParseFloat(string(raw.ID), 64); err == nil {
		e.ID = string(raw.ID)
	}
	if e.ID == "" || e.Name == "" {
		return event{}, fmt.Errorf("no id or no event")
	}
	return e, nil
}
