package wire

import (
	"encoding/json"
	"time"
)

// job is a job to read records into, and to write them from.
type job struct {
	Data     json.RawMessage
	Options  options
	Status   string
	Progress json.RawMessage
	Result   json.RawMessage
	Rest
}

type options struct {
	Created     time.Time
	Retries     int
	Timeout     time.Duration
	DelayUntil  time.Time
	Backoff     backoff
	Stacktraces []string
}

type backoff struct {
	Strategy string
	Delay    time.Duration
}

// record returns the addresses of the job's fields.
func (j *job) record() Record {
	o := &j.Options
	return Record{
		Data: &j.Data, Status: &j.Status, Progress: &j.Progress, Result: &j.Result,
		Created: &o.Created, Retries: &o.Retries, Timeout: &o.Timeout, DelayUntil: &o.DelayUntil,
		Strategy: &o.Backoff.Strategy, Delay: &o.Backoff.Delay, Stacktraces: &o.Stacktraces,
		Rest: &j.Rest,
	}
}

// encode writes the job's record.
func (j *job) encode() string {
	r := j.record()
	return r.Encode()
}

// decode reads a record.
func decode(record string) (*job, error) {
	j := new(job)
	r := j.record()
	return j, r.Decode(record)
}
