package beequeue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
	"github.com/gobeequeue/beequeue/internal/wire"
)

// Status is what a job's record says about its last run. It is written only when a run
// ends; where the job is right now is its State.
type Status string

// The statuses of Bee-Queue's records.
const (
	StatusCreated   Status = "created"
	StatusSucceeded Status = "succeeded"
	StatusRetrying  Status = "retrying"
	StatusFailed    Status = "failed"
)

// State names the place where a job is. Every job is in exactly one.
type State string

// The states, in Bee-Queue's words; each is also the name of a Redis key.
const (
	StateWaiting   State = "waiting"
	StateActive    State = "active"
	StateDelayed   State = "delayed"
	StateSucceeded State = "succeeded"
	StateFailed    State = "failed"
)

// A Job is one unit of work. Queue.CreateJob makes a new one: set what it needs, and
// Save it. A Handler gets the job that it is to run, and GetJob looks a job up. A Job
// is not safe for use by several goroutines at once.
type Job struct {
	// ID is unique in the queue. Save sets it, unless SetID did.
	ID string
	// Data is the payload as JSON; `{}` if CreateJob got nil.
	Data json.RawMessage
	// Options are what the setters set and what the worker counts.
	Options Options
	// Status is the status of the job's record when that was last read or written.
	Status Status
	// Progress is what was last reported, any JSON. As in Bee-Queue, it reaches the
	// stored record only when a run ends.
	Progress json.RawMessage
	// Result is what the handler returned, as JSON. It is nil if the handler returned
	// nil or the job has not succeeded. Workers of beequeue store it, Node's do not.
	Result json.RawMessage

	queue *Queue
	err   error     // the first error of a setter; Save returns it
	save  *saveItem // a Save whose outcome is not known yet
	saved offset    // what the subscriber had heard before the save; zero if the id may be an old one
	read  wire.Rest // what its record holds besides the fields above
}

// Options are the settings of one job and what its runs left behind. Read them here;
// change them with the Job's setters.
type Options struct {
	// Created is when CreateJob made the job.
	Created time.Time
	// Retries is how many more times a failed run is tried again.
	Retries int
	// Timeout is how long one run may take; zero means no limit.
	Timeout time.Duration
	// DelayUntil is when the first run is due; zero means at once.
	DelayUntil time.Time
	// Backoff is the wait before a retry.
	Backoff Backoff
	// Stacktraces has the error of each failed run, the newest first, with the stack
	// if there is one.
	Stacktraces []string
}

// Backoff is how long a failed job waits before its next try.
type Backoff struct {
	Strategy Strategy      // empty means Immediate
	Delay    time.Duration // what the strategy starts from; Immediate does not use it
}

// CreateJob makes a job with data as its payload: any value that encoding/json can
// marshal. As in Bee-Queue, nil is stored as `{}`. Nothing is sent to Redis until Save,
// which also returns the error if data cannot be marshalled.
func (q *Queue) CreateJob(data any) *Job {
	job := &Job{
		Data:    json.RawMessage("{}"),
		Options: Options{Created: time.Now().Truncate(time.Millisecond)},
		Status:  StatusCreated,
		queue:   q,
	}
	job.Progress = json.RawMessage("0")
	if raw, ok := data.(json.RawMessage); ok && len(raw) > 0 {
		job.Data = bytes.Clone(raw) // Save checks whether it is JSON
	} else if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			job.fail(fmt.Errorf("marshal data: %w", err))
		} else {
			job.Data = raw
		}
	}
	return job
}

// fail keeps the first error of a setter for Save.
func (j *Job) fail(err error) {
	if j.err == nil {
		j.err = err
	}
}

// SetID gives the job an id of your choice. An id makes a job unique: Save returns
// ErrDuplicateID if the queue already has a job with that id. Do not use decimal
// numbers, because automatic ids are decimal numbers. The id may not be empty; if it
// is, Save returns an error.
func (j *Job) SetID(id string) *Job {
	if id == "" {
		j.fail(errors.New("SetID: id is empty"))
	}
	j.ID = id
	return j
}

// Retries sets how many times the job is tried again after a failed run; default 0.
// If n is negative, Save returns an error.
func (j *Job) Retries(n int) *Job {
	if n < 0 {
		j.fail(fmt.Errorf("Retries: %d is negative", n))
	}
	j.Options.Retries = n
	return j
}

// Backoff sets how long the job waits before it is tried again; default Immediate.
// The strategy must be one of Bee-Queue's or in Config.Backoffs; otherwise Save returns
// ErrUnknownBackoff. The delay must be positive, except for Immediate; otherwise Save
// returns an error. It is stored in milliseconds, rounded up.
func (j *Job) Backoff(s Strategy, delay time.Duration) *Job {
	if !isBuiltIn(s) && (j.queue == nil || j.queue.config.Backoffs[s] == nil) {
		j.fail(fmt.Errorf("Backoff: %w %q", ErrUnknownBackoff, s))
	}
	if delay <= 0 && s != Immediate {
		j.fail(fmt.Errorf("Backoff: delay %v is not positive", delay))
	}
	j.Options.Backoff = Backoff{Strategy: s, Delay: max(0, delay)}
	return j
}

// DelayUntil keeps the job in delayed until t, and then moves it to waiting; default no
// delay. A time in the past means no delay. The time is stored in milliseconds, rounded
// up. If it is more than 2^53 ms after 1970, Save returns an error.
func (j *Job) DelayUntil(t time.Time) *Job {
	if t.IsZero() || !t.After(time.Now()) {
		j.Options.DelayUntil = time.Time{}
		return j
	}
	if t.UnixMilli() > wire.MaxMillis {
		j.fail(fmt.Errorf("DelayUntil: %v is too far away", t))
	}
	j.Options.DelayUntil = t
	return j
}

// Timeout bounds one run of the job; default 0, no limit. When the time is over, the
// handler's context is cancelled with the cause ErrTimeout. The job counts as failed
// once the handler has returned an error. The timeout is stored in milliseconds, rounded
// up. If it is negative, Save returns an error.
func (j *Job) Timeout(d time.Duration) *Job {
	if d < 0 {
		j.fail(fmt.Errorf("Timeout: %v is negative", d))
	}
	j.Options.Timeout = d
	return j
}

// Decode unmarshals the job's data into v, a pointer. The error wraps the one of
// encoding/json.
func (j *Job) Decode(v any) error {
	if err := json.Unmarshal(j.Data, v); err != nil {
		return fmt.Errorf("beequeue: decode data of job %q: %w", j.ID, err)
	}
	return nil
}

// decodeJob reads a record. Its error is a *RecordError.
func decodeJob(q *Queue, id, record string) (*Job, error) {
	job := &Job{ID: id, queue: q}
	var r wire.Record
	job.locate(&r)
	if err := r.Decode(record); err != nil {
		return nil, &RecordError{ID: id, Reason: err.Error()}
	}
	return job, nil
}

// encode returns the job's record as it is stored.
func (j *Job) encode() string {
	var r wire.Record
	j.locate(&r)
	return r.Encode()
}

// locate sets r to the addresses of the job's fields, field by field, because a literal
// would have its caller need twice the stack.
func (j *Job) locate(r *wire.Record) {
	r.Data, r.Progress, r.Result = &j.Data, &j.Progress, &j.Result
	r.Status = (*string)(&j.Status)
	o := &j.Options
	r.Created, r.DelayUntil = &o.Created, &o.DelayUntil
	r.Retries, r.Timeout = &o.Retries, &o.Timeout
	r.Strategy, r.Delay = (*string)(&o.Backoff.Strategy), &o.Backoff.Delay
	r.Stacktraces = &o.Stacktraces
	r.Rest = &j.read
}

// outcome is what became of a run. It is decided before anything is written.
type outcome struct {
	status Status
	delay  time.Duration // before the next try, if status is retrying
	result json.RawMessage
	err    error
}

// decide works out what becomes of the job after a run that ended with result or err,
// and updates the job accordingly. As in Bee-Queue, a failed job with retries left is
// tried again after its backoff, and the error goes to the front of its stacktraces. An
// error that wraps ErrNoRetry fails the job for good. So does a backoff strategy that is
// neither built in nor in own.
func (j *Job) decide(result json.RawMessage, err error, own map[Strategy]BackoffFunc) outcome {
	if err == nil {
		j.Status, j.Result, j.read.NoResult = StatusSucceeded, result, len(result) == 0
		return outcome{status: StatusSucceeded, result: result}
	}
	j.Result, j.read.NoResult = nil, false
	retry := j.Options.Retries > 0 && !errors.Is(err, ErrNoRetry)
	var delay time.Duration
	if retry {
		var unknown error
		if delay, unknown = j.nextBackoff(own); unknown != nil {
			retry, err = false, fmt.Errorf("%w (not retried: %w)", err, unknown)
		}
	}
	j.Options.Stacktraces = append([]string{stackText(err)}, j.Options.Stacktraces...)
	if !retry {
		j.Status = StatusFailed
		return outcome{status: StatusFailed, err: err}
	}
	j.Options.Retries--
	j.Status = StatusRetrying
	return outcome{status: StatusRetrying, err: err, delay: delay}
}

// stackText returns the entry of stacktraces for an error: the message, and the stack
// if the handler panicked.
func stackText(err error) string {
	var p *PanicError
	if errors.As(err, &p) {
		return err.Error() + "\n\n" + p.Stack
	}
	return err.Error()
}

// largeRecord is the average record size, in bytes, from which a worker reads records by
// a plain HMGET after the claim. A record of that size is sent whole, as an argument, when
// its job ends. Both cost Redis less than bringing the records into Lua.
const largeRecord = 4096

// outcomeOf decides what becomes of a job after a run, and prepares the call that
// records it. A plain success carries only the result: the script writes the new status
// into the stored record.
func (q *Queue) outcomeOf(e *runEnd, job *Job, result json.RawMessage, err error) {
	config := &q.config
	plain := err == nil && !config.RemoveOnSuccess && len(e.run.record) < largeRecord && e.run.unchanged(job)
	if !plain {
		if broken := job.repair(e.run.record); broken != nil {
			q.report(broken, "job %q", e.run.id)
		}
	}
	o := job.decide(result, err, config.Backoffs)
	e.outcome, e.job = &o, job
	if plain {
		statusAt := job.read.StatusAt.Start - len(statusName) + 1 // Lua counts from 1
		e.call = store.Outcome{ID: e.run.id, Claim: e.run.claim, Kind: store.EndPlain, StatusAt: statusAt, Payload: string(result)}
		return
	}
	e.call = e.whole(q)
}

// repair restores data or progress that the handler replaced by something that is not
// JSON, because that would spoil the record. It returns an error if it did so. The
// record is the job's, as claimed: it has the data to restore. Progress is dropped.
func (j *Job) repair(record string) error {
	var broken error
	if !wire.Valid(j.Data) {
		broken = fmt.Errorf("data set by the handler is not JSON: %s", wire.Excerpt(j.Data))
		if before, err := decodeJob(j.queue, j.ID, record); err == nil {
			j.Data = before.Data
		}
	}
	if len(j.Progress) > 0 && !wire.Valid(j.Progress) {
		broken = fmt.Errorf("progress set by the handler is not JSON: %s", wire.Excerpt(j.Progress))
		j.Progress = nil
	}
	return broken
}

// statusName is how Bee-Queue and beequeue write the name of a record's status.
const statusName = `"status":`

// unchanged reports whether the record needs only a new status and a result. The
// handler must have left the job as it was. The job must not have been in succeeded or
// failed before, because a Node process may have left it there.
func (r *run) unchanged(job *Job) bool {
	o, claimed, read := &job.Options, &r.options, &job.read
	status := read.StatusAt.In(r.record)
	return job == r.job && (status == `"created"` || status == `"retrying"`) && job.Result == nil &&
		strings.HasSuffix(r.record[:read.StatusAt.Start], statusName) &&
		read.DataAt.End > 0 && read.DataAt.In(r.record) == string(job.Data) &&
		read.ProgressAt.In(r.record) == string(job.Progress) &&
		o.Created.Equal(claimed.Created) && o.Retries == claimed.Retries && o.Timeout == claimed.Timeout &&
		o.DelayUntil.Equal(claimed.DelayUntil) && o.Backoff == claimed.Backoff &&
		len(o.Stacktraces) == 0 && len(claimed.Stacktraces) == 0 && wire.Unescaped(r.id)
}

// whole returns the call that records an outcome with the whole record.
func (e *runEnd) whole(q *Queue) store.Outcome {
	config, o := &q.config, e.outcome
	c := store.Outcome{ID: e.run.id, Claim: e.run.claim, Delay: o.delay}
	switch {
	case o.status == StatusSucceeded && config.RemoveOnSuccess, o.status == StatusFailed && config.RemoveOnFailure:
		c.Kind = store.EndRemoved
	case o.status == StatusSucceeded:
		c.Kind = store.EndSucceeded
	case o.status == StatusFailed:
		c.Kind = store.EndFailed
	default:
		c.Kind = store.EndRetrying
	}
	if c.Kind != store.EndRemoved {
		c.Payload = e.job.encode()
	}
	if !config.NoEvents {
		data := o.result
		if o.err != nil {
			data = wire.AppendString(nil, o.err.Error())
		}
		c.Event = wire.EncodeEvent(e.run.id, string(o.status), data)
	}
	return c
}

// unreadable returns the call for a job whose record cannot be read: the job fails, and
// the record stays as it is.
func (q *Queue) unreadable(id, claim string, reason error) store.Outcome {
	c := store.Outcome{ID: id, Claim: claim, Kind: store.EndUnreadable, Payload: reason.Error()}
	var malformed *RecordError
	if errors.As(reason, &malformed) {
		c.Payload = malformed.Reason
	}
	if !q.config.NoEvents {
		c.Event = wire.EncodeEvent(id, eventFailed, wire.AppendString(nil, reason.Error()))
	}
	return c
}
