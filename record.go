package beequeue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The job record, as Bee-Queue stores it in the hash `jobs`: one JSON object
// with data, options, status and progress. beequeue adds a top-level `result`,
// which Node ignores, and drops when it rewrites the record: so a result never
// outlives the run it belongs to.

// rawField is one field of options that beequeue does not know.
type rawField struct {
	name  string
	value json.RawMessage
}

// encode gives the record to store.
func (j *Job) encode() string {
	b := make([]byte, 0, 160+len(j.Data)+len(j.Result))
	b = append(b, `{"data":`...)
	b = append(b, j.Data...)
	b = append(b, `,"options":{"timestamp":`...)
	created := int64(0)
	if !j.Options.Created.IsZero() {
		created = j.Options.Created.UnixMilli()
	}
	b = strconv.AppendInt(b, created, 10)
	b = append(b, `,"stacktraces":[`...)
	for i, s := range j.Options.Stacktraces {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	b = append(b, ']')
	if j.Options.Retries > 0 || j.Status == StatusRetrying {
		b = append(b, `,"retries":`...)
		b = strconv.AppendInt(b, int64(j.Options.Retries), 10)
	}
	if j.Options.Timeout > 0 {
		b = append(b, `,"timeout":`...)
		b = strconv.AppendInt(b, millis(j.Options.Timeout), 10)
	}
	if !j.Options.DelayUntil.IsZero() {
		b = append(b, `,"delay":`...)
		b = strconv.AppendInt(b, dueMillis(j.Options.DelayUntil), 10)
	}
	if backoff := j.Options.Backoff; backoff != (Backoff{}) {
		b = append(b, `,"backoff":{"strategy":`...)
		b = appendString(b, string(backoff.Strategy))
		b = append(b, `,"delay":`...)
		b = strconv.AppendInt(b, millis(backoff.Delay), 10)
		b = append(b, '}')
	}
	for _, f := range j.unknown {
		b = append(b, ',')
		b = appendString(b, f.name)
		b = append(b, ':')
		b = append(b, f.value...)
	}
	b = append(b, `},"status":`...)
	b = appendString(b, string(j.Status))
	if len(j.Progress) > 0 {
		b = append(b, `,"progress":`...)
		b = append(b, j.Progress...)
	}
	if len(j.Result) > 0 {
		b = append(b, `,"result":`...)
		b = append(b, j.Result...)
	}
	return string(append(b, '}'))
}

// repair puts back what a handler made of the job's data or progress if it is not
// JSON, which would spoil the record, and says so. The record is the one claimed.
func (j *Job) repair(record string) error {
	var broken error
	if !json.Valid(j.Data) {
		broken = fmt.Errorf("data set by the handler is not JSON: %s", excerpt(j.Data))
		if before, err := decodeJob(j.queue, j.ID, record); err == nil {
			j.Data = before.Data
		}
	}
	if len(j.Progress) > 0 && !json.Valid(j.Progress) {
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

func appendString(b []byte, s string) []byte {
	quoted, _ := json.Marshal(s) //nolint:errchkjson // a string always marshals
	return append(b, quoted...)
}

// decodeJob reads a record. What is absent or null is its default; unknown
// fields of options are kept; anything of the wrong type is a RecordError.
// Numbers may be any JSON number, as they may in Node.
func decodeJob(q *Queue, id, record string) (*Job, error) {
	d := recordDecoder{id: id}
	job := &Job{ID: id, queue: q}
	top := d.object("record", json.RawMessage(record))
	if top == nil && d.reason == "" {
		d.fail("want an object, got null")
	}
	job.Data, job.Progress, job.Result = top["data"], top["progress"], top["result"]
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

// recordDecoder reads the parts of a record and keeps the first complaint.
type recordDecoder struct {
	id     string
	reason string
}

func (d *recordDecoder) fail(format string, args ...any) {
	if d.reason == "" {
		d.reason = fmt.Sprintf(format, args...)
	}
}

// options takes the fields it knows out of raw.
func (d *recordDecoder) options(raw map[string]json.RawMessage) Options {
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
			s = string(trace)
		}
		o.Stacktraces = append(o.Stacktraces, s)
	}
	return o
}

func absent(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null"
}

func (d *recordDecoder) object(name string, raw json.RawMessage) map[string]json.RawMessage {
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

func (d *recordDecoder) text(name string, raw json.RawMessage) string {
	var s string
	if !absent(raw) && json.Unmarshal(raw, &s) != nil {
		d.fail("%s: want a string, got %s", name, excerpt(raw))
	}
	return s
}

// number gives a number that is not negative and that a float64 holds exactly. A
// string that holds a number is one, as Node's job.retries('2') stores it so.
func (d *recordDecoder) number(name string, raw json.RawMessage) float64 {
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

	end error // of a job that failed for good, as its waiters get it
}

// encodeEvent gives the message that tells other processes of a job. Data may
// be nil.
func encodeEvent(id, name string, data json.RawMessage) string {
	b := make([]byte, 0, 48+len(id)+len(data))
	b = append(b, `{"id":`...)
	b = appendString(b, id)
	b = append(b, `,"event":`...)
	b = appendString(b, name)
	if len(data) > 0 {
		b = append(b, `,"data":`...)
		b = append(b, data...)
	}
	return string(append(b, '}'))
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
