package beequeue

import (
	"errors"
	"fmt"

	"github.com/gobeequeue/beequeue/internal/store"
)

// These are the errors to test for with errors.Is. The errors that wrap them name the
// queue and the job.
var (
	// ErrClosed is returned after Close by Save, SaveAll, Process, Drain, Ready, Wait,
	// Watch, WaitFor, RemoveJob, Remove, Retry, CheckStalled, Audit, Repair and Destroy.
	// Close ends a Wait with it, and a Save that is not sent in time. GetJob, GetJobs,
	// Counts, IsInSet and ReportProgress still work.
	//
	// It is also the cause of a handler's cancelled context when its worker stops and the
	// grace period is over.
	ErrClosed = errors.New("queue is closed")

	// ErrNotFound means that Redis has no record of the job. It was never saved, was
	// removed, or finished with Config.RemoveOnSuccess or RemoveOnFailure.
	ErrNotFound = store.ErrNotFound

	// ErrDuplicateID means that a job with the id given to SetID is stored already. The
	// stored job stays as it was.
	ErrDuplicateID = errors.New("a job with this id exists already")

	// ErrDataTooLarge, ErrIDTooLong and ErrQueueFull mean that a Save would have exceeded
	// Config.MaxData, MaxID or MaxWaiting. Nothing was stored.
	ErrDataTooLarge = errors.New("data is too large")
	ErrIDTooLong    = errors.New("id is too long")
	ErrQueueFull    = errors.New("too many jobs are waiting")

	// ErrOutOfMemory means that Redis has reached its maxmemory and may not evict anything
	// (error OOM, policy noeviction). Nothing was stored.
	ErrOutOfMemory = store.ErrOutOfMemory

	// ErrUncertain means that the change may or may not have been made, because the
	// connection was lost or the time ran out between a request and its reply. Saving the
	// same *Job once more is safe, and tells which it was.
	ErrUncertain = store.ErrUncertain

	// ErrOwnershipLost means that a job stopped being this worker's while its handler
	// ran. The job was taken back because nobody had phoned in for it in time, or it was
	// removed. ErrOwnershipLost is the cause of the handler's cancelled context, and
	// OnError gets it. What the handler returns is not recorded.
	ErrOwnershipLost = errors.New("job is no longer owned by this worker")

	// ErrTimeout means that a job's Timeout passed. It is the cause of the handler's
	// cancelled context, and the error that the job fails with wraps it.
	ErrTimeout = errors.New("job timed out")

	// ErrStuck goes to OnError when a handler has not returned within Config.TimeoutGrace
	// of its job's timeout. The job is retried or failed, and the handler keeps its slot
	// until it returns.
	//
	// Process returns ErrStuck if nothing else went wrong, but such a handler, or one whose
	// job was lost, has not returned 2 s after the rest of the worker has ended. Close
	// returns it if Process does, and if a callback keeps Close from ending.
	ErrStuck = errors.New("handler does not return")

	// ErrUnfinished is returned by Process and Close when the grace period ended before
	// the handlers did. Their jobs were handed back to waiting.
	ErrUnfinished = errors.New("jobs handed back unfinished")

	// ErrStalled means that a job was failed because it was taken back from lost workers
	// more than Config.MaxStalls times.
	ErrStalled = errors.New("job stalled too often")

	// ErrNotFailed is returned by Job.Retry for a job that is not in failed.
	ErrNotFailed = store.ErrNotFailed

	// ErrUnknownBackoff means that a job names a backoff strategy that is neither built in
	// nor in Config.Backoffs.
	ErrUnknownBackoff = errors.New("unknown backoff strategy")

	// ErrNoRetry fails a job for good, whatever retries it has left, if the error that the
	// handler returns wraps it.
	ErrNoRetry = errors.New("not retryable")

	// ErrBusy is returned by Process and Drain while another Process or Drain of the same
	// queue value is under way.
	ErrBusy = errors.New("queue is processing already")

	// ErrKeyLayout means that the queue's keys cannot work on the server. The keys lie in
	// several slots of a cluster, or the client speaks to one node of a cluster alone, or
	// the queue's name cannot be part of a key.
	ErrKeyLayout = store.ErrKeyLayout

	// ErrUnsupportedServer means that the server is older than Redis 6.2.
	ErrUnsupportedServer = store.ErrUnsupportedServer
)

// A FailedError is the error of a job that failed, as Wait, Watch and the OnJob callbacks
// report it.
type FailedError struct {
	ID      string // the job
	Message string // the handler's error, as text
	Stack   string // the newest entry of the job's stacktraces, or empty if not known
}

// Error names the job and shows the handler's message.
func (e *FailedError) Error() string {
	return fmt.Sprintf("job %q failed: %s", e.ID, e.Message)
}

// A RecordError means that what Redis holds as a job is not a job record. The record is
// left as it is.
type RecordError struct {
	ID     string // the job
	Reason string // what is wrong with the record
}

// Error names the job and what is wrong with its record.
func (e *RecordError) Error() string {
	return fmt.Sprintf("job %q has a malformed record: %s", e.ID, e.Reason)
}

// An EventError means that another process published something on one of the queue's
// channels that cannot be read. It goes to OnError.
type EventError struct {
	Channel string // where it was published
	Payload string // at most its first 200 bytes
	Reason  string // what is wrong with it
}

// Error names the channel and shows the beginning of the payload.
func (e *EventError) Error() string {
	return fmt.Sprintf("malformed message on %q: %s: %q", e.Channel, e.Reason, e.Payload)
}

// stalledError is the error of a job that was taken back from lost workers too often. The
// job is not retried.
type stalledError struct{ times int }

func (e *stalledError) Error() string {
	return fmt.Sprintf("job stalled %d times: its worker died or was cut off in each of its last runs", e.times)
}

func (e *stalledError) Is(target error) bool { return target == ErrStalled || target == ErrNoRetry }

// A PanicError is the error of a job whose handler panicked. OnError gets one if a callback
// panicked.
type PanicError struct {
	Value any    // what was passed to panic; nil for runtime.Goexit
	Stack string // the goroutine's stack
}

// Error returns the panic's value as text, without the stack.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "runtime.Goexit called"
	}
	return fmt.Sprintf("panic: %v", e.Value)
}

// Unwrap returns the panic's value if it is an error, and nil otherwise.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
