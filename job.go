package beequeue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// Status is what a job's record says of its last run. It is written only when
// a run ends; where a job is right now is its State.
type Status string

// The statuses of Bee-Queue's records.
const (
	StatusCreated   Status = "created"
	StatusSucceeded Status = "succeeded"
	StatusRetrying  Status = "retrying"
	StatusFailed    Status = "failed"
)

// State names the place a job is in. A job is in exactly one.
type State string

// The states, in Bee-Queue's words; each is also the name of a Redis key.
const (
	StateWaiting   State = "waiting"
	StateActive    State = "active"
	StateDelayed   State = "delayed"
	StateSucceeded State = "succeeded"
	StateFailed    State = "failed"
)

// A Job is one unit of work. Make one with Queue.CreateJob, set what it needs,
// and Save it; a Handler gets one, and GetJob looks one up. A Job is not safe
// for use by several goroutines at once.
type Job struct {
	// ID is unique in the queue. Save sets it, unless SetID did.
	ID string
	// Data is the payload as JSON, `{}` where none was given.
	Data json.RawMessage
	// Options are what the setters set and the worker keeps count of.
	Options Options
	// Status is the record's, as of when it was read or written.
	Status Status
	// Progress is what was last reported, any JSON. It reaches the stored
	// record only when a run ends, as in Bee-Queue.
	Progress json.RawMessage
	// Result is what the handler returned, as JSON; nil if it returned nil or
	// the job has not succeeded. Kept by beequeue workers, not by Node's.
	Result json.RawMessage

	queue   *Queue
	err     error      // the first error of a setter; Save returns it
	save    *saveItem  // a Save whose outcome is not known yet
	saved   offset     // what the subscriber had heard before the save; zero if the id may be an old one
	unknown []rawField // fields of options that beequeue does not know, kept

	// The record says that there is no result, by a null, which tells it from the
	// record of a Node process: that has none in any case.
	noResult bool

	// Where the parts are in the record that decodeJob read; an end of 0: not there,
	// or not written in the plain way.
	statusAt, statusEnd     int
	dataAt, dataEnd         int
	progressAt, progressEnd int
}

// Options are the settings of one job and what its runs left behind. Read
// them; change them with the Job's setters.
type Options struct {
	// Created is when CreateJob made the job.
	Created time.Time
	// Retries is how many more times a failed run is tried again.
	Retries int
	// Timeout is how long one run may take; zero is no limit.
	Timeout time.Duration
	// DelayUntil is when the first run is due; zero is at once.
	DelayUntil time.Time
	// Backoff is the wait before a retry.
	Backoff Backoff
	// Stacktraces has the error of each failed run, the newest first, with the
	// stack where there is one.
	Stacktraces []string
}

// Backoff is how long a failed job waits before its next try.
type Backoff struct {
	Strategy Strategy      // empty is Immediate
	Delay    time.Duration // what the strategy starts from; not used by Immediate
}

// CreateJob makes a job with data as its payload, any value that
// encoding/json can marshal; nil is stored as `{}`, as in Bee-Queue. Nothing
// is sent to Redis until Save, which also returns the error if data cannot be
// marshalled.
func (q *Queue) CreateJob(data any) *Job {
	job := &Job{
		Data:    json.RawMessage("{}"),
		Options: Options{Created: time.Now().Truncate(time.Millisecond)},
		Status:  StatusCreated,
		queue:   q,
	}
	job.Progress = json.RawMessage("0")
	if raw, ok := data.(json.RawMessage); ok && len(raw) > 0 {
		job.Data = bytes.Clone(raw) // Save looks whether it is JSON
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

// SetID gives the job an id of your choice. If the queue has a job of that id
// when this one is saved, Save returns ErrDuplicateID: so an id makes a job
// unique. Do not use decimal numbers, which automatic ids are. The id may not
// be empty.
func (j *Job) SetID(id string) *Job {
	if id == "" {
		j.fail(errors.New("SetID: id is empty"))
	}
	j.ID = id
	return j
}

// Retries sets how many times the job is tried again after a failed run;
// default 0. It may not be negative.
func (j *Job) Retries(n int) *Job {
	if n < 0 {
		j.fail(fmt.Errorf("Retries: %d is negative", n))
	}
	j.Options.Retries = n
	return j
}

// Backoff sets how long the job waits before it is tried again; default
// Immediate. The strategy must be one of Bee-Queue's or in Config.Backoffs,
// else Save returns ErrUnknownBackoff. The delay must be positive, except for
// Immediate; it counts in milliseconds, rounded up.
func (j *Job) Backoff(s Strategy, delay time.Duration) *Job {
	if !j.queue.knowsBackoff(s) {
		j.fail(fmt.Errorf("Backoff: %w %q", ErrUnknownBackoff, s))
	}
	if delay <= 0 && s != Immediate {
		j.fail(fmt.Errorf("Backoff: delay %v is not positive", delay))
	}
	j.Options.Backoff = Backoff{Strategy: s, Delay: max(0, delay)}
	return j
}

// DelayUntil keeps the job in delayed until t, and then moves it to waiting. A
// time that is past is no delay. It counts in milliseconds, rounded up.
func (j *Job) DelayUntil(t time.Time) *Job {
	if t.IsZero() || !t.After(time.Now()) {
		j.Options.DelayUntil = time.Time{}
		return j
	}
	if t.UnixMilli() > maxMillis {
		j.fail(fmt.Errorf("DelayUntil: %v is too far away", t))
	}
	j.Options.DelayUntil = t
	return j
}

// Timeout bounds one run of the job; default no limit. When it passes, the
// handler's context is cancelled with the cause ErrTimeout, and the job counts
// as failed once the handler has returned an error. It counts in milliseconds,
// rounded up, and may not be negative.
func (j *Job) Timeout(d time.Duration) *Job {
	if d < 0 {
		j.fail(fmt.Errorf("Timeout: %v is negative", d))
	}
	j.Options.Timeout = d
	return j
}

// Decode unmarshals the job's data into v, a pointer.
func (j *Job) Decode(v any) error {
	if err := json.Unmarshal(j.Data, v); err != nil {
		return fmt.Errorf("beequeue: decode data of job %q: %w", j.ID, err)
	}
	return nil
}

// outcome is what became of one run, decided before anything is written.
type outcome struct {
	status Status
	delay  time.Duration // before the next try, if status is retrying
	result json.RawMessage
	err    error
}

// decide works out what becomes of the job after a run that ended with result
// or err, and brings the job's record up to date. As in Bee-Queue: a failed job
// with retries left is tried again after its backoff, and the error goes to the
// front of its stacktraces. An error that wraps ErrNoRetry, and a backoff
// strategy that nobody here knows, fail the job for good.
func (j *Job) decide(result json.RawMessage, err error, own map[Strategy]BackoffFunc) outcome {
	if err == nil {
		j.Status, j.Result, j.noResult = StatusSucceeded, result, len(result) == 0
		return outcome{status: StatusSucceeded, result: result}
	}
	j.Result, j.noResult = nil, false
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

// stackText is what goes into stacktraces: the message, and the stack if the
// handler panicked.
func stackText(err error) string {
	var p *PanicError
	if errors.As(err, &p) {
		return err.Error() + "\n\n" + p.Stack
	}
	return err.Error()
}

// maxMillis is the largest time that Node and Lua hold exactly (2^53).
const maxMillis = 1 << 53

// millis rounds a duration up to whole milliseconds.
func millis(d time.Duration) int64 {
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	return int64(ms)
}

// fromMillis takes the milliseconds of a record, which may be more than a
// time.Duration holds. It rounds up to whole ones, which is what is stored.
func fromMillis(ms float64) time.Duration {
	if ms >= float64(math.MaxInt64/time.Millisecond) {
		return math.MaxInt64
	}
	return time.Duration(math.Ceil(ms)) * time.Millisecond
}
