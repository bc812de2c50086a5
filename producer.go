package beequeue

import (
	"context"
	"errors"
	"fmt"
)

// Save stores the job and puts it in waiting, or in delayed if DelayUntil set a time in
// the future. Then job.ID is set.
//
// Many goroutines may Save at once at little cost: Saves that come while others are on
// their way to Redis go together in the next call.
//
// A Save that loses its connection repeats its request under the same name. The job is
// enqueued once, however often the request arrives. Save tries until ctx ends or, if ctx
// has no deadline, for Config.CallTimeout.
//
// The error wraps ErrUncertain if it is not known by then whether Redis has the job.
// Saving the same *Job again goes on from there, and cannot enqueue it twice. Meanwhile
// the request is repeated in the background, for up to half an hour or until Close. A
// job whose outcome is unknown even then stays ErrUncertain.
//
// Other errors wrap:
//
//   - ErrDuplicateID if the id given to SetID is taken;
//   - ErrDataTooLarge, ErrIDTooLong or ErrQueueFull if the job exceeds a limit of Config;
//   - ErrOutOfMemory if Redis has reached its maxmemory;
//   - ErrUnknownBackoff, or another error of a setter;
//   - ErrClosed after Close.
//
// With Config.SaveReplicas, Save returns once that many replicas have the job.
func (j *Job) Save(ctx context.Context) error {
	if j == nil || j.queue == nil {
		return errors.New("beequeue: save: job was not made by CreateJob")
	}
	if err := j.queue.saves.saveOne(ctx, j); err != nil {
		return j.queue.wrap(err, "save job %q", j.ID)
	}
	return nil
}

// SaveAll stores jobs, in order, in as few calls as it can: one for up to a thousand
// jobs. A job that is in jobs twice is saved once.
//
// All jobs that can be saved are saved. If some cannot, the error wraps a *SaveAllError
// with the error of each, as Save would have returned it. Try again only with the jobs
// in SaveAllError.Errors: the others would be duplicates, or run again.
func (q *Queue) SaveAll(ctx context.Context, jobs []*Job) error {
	if failed := q.saves.save(ctx, jobs); len(failed) > 0 {
		return q.wrap(&SaveAllError{Errors: failed}, "save %d jobs", len(jobs))
	}
	return nil
}

// A SaveAllError says which jobs SaveAll could not save. The others are saved.
type SaveAllError struct {
	Errors map[*Job]error // the error of each job, as Save would have returned it
}

// Error returns the number of jobs and one of the errors.
func (e *SaveAllError) Error() string {
	for _, err := range e.Errors {
		return fmt.Sprintf("%d jobs not saved, one of them: %v", len(e.Errors), err)
	}
	return "no job failed"
}

// Unwrap returns all errors, for errors.Is and errors.As.
func (e *SaveAllError) Unwrap() []error {
	all := make([]error, 0, len(e.Errors))
	for _, err := range e.Errors {
		all = append(all, err)
	}
	return all
}
