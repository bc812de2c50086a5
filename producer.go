package beequeue

import (
	"context"
	"errors"
	"fmt"
)

// Save stores the job and puts it in waiting, or in delayed if DelayUntil set a
// time to come. Then job.ID is set.
//
// Saves that come while others are on their way to Redis go together in the
// next call, so many goroutines may Save at once at little cost.
//
// A Save that loses its connection repeats its request under the same name,
// which enqueues the job once, however often the request arrives. It tries until
// ctx ends or, if ctx has no deadline, for Config.CallTimeout. If by then it is
// not known whether Redis has the job, the error wraps ErrUncertain; saving the
// same *Job again goes on from there, and cannot enqueue it twice. Left alone,
// the request goes on being repeated for up to half an hour, or until Close; a
// job of which nothing is known by then stays ErrUncertain.
//
// The error wraps ErrDuplicateID if the id given to SetID is taken, ErrClosed
// after Close, ErrUnknownBackoff and others for what the setters were given, and
// ErrDataTooLarge, ErrIDTooLong and ErrQueueFull for the limits of Config, and
// ErrOutOfMemory for Redis's. With Config.SaveReplicas, Save returns when the job has
// been copied to so many replicas.
func (j *Job) Save(ctx context.Context) error {
	if j == nil || j.queue == nil {
		return errors.New("beequeue: save: job was not made by CreateJob")
	}
	if err := j.queue.saves.saveOne(ctx, j); err != nil {
		return j.queue.wrap(err, "save job %q", j.ID)
	}
	return nil
}

// SaveAll stores jobs, in order, in as few calls as it can: one for up
// to a thousand jobs. All jobs that can be saved are; if some cannot, the error
// wraps a *SaveAllError with the error of each, as Save would have returned it.
// A job that is in jobs twice is saved once. Try again with the jobs in
// SaveAllError.Errors only: the others would be duplicates, or run again.
func (q *Queue) SaveAll(ctx context.Context, jobs []*Job) error {
	if failed := q.saves.save(ctx, jobs); len(failed) > 0 {
		return q.wrap(&SaveAllError{Errors: failed}, "save %d jobs", len(jobs))
	}
	return nil
}

// refuse says why a job cannot be saved at all.
func (s *saver) refuse(j *Job) error {
	config := &s.q.config
	switch {
	case j == nil:
		return errors.New("job is nil")
	case j.err != nil:
		return j.err
	case j.queue == nil:
		return errors.New("job was not made by CreateJob")
	case j.queue != s.q:
		return fmt.Errorf("job belongs to queue %q", j.queue.name)
	case config.MaxData > 0 && len(j.Data) > config.MaxData:
		return fmt.Errorf("%w: %d bytes, of at most %d", ErrDataTooLarge, len(j.Data), config.MaxData)
	case config.MaxID > 0 && len(j.ID) > config.MaxID:
		return fmt.Errorf("%w: %d bytes, of at most %d", ErrIDTooLong, len(j.ID), config.MaxID)
	case !valid(j.Data):
		return fmt.Errorf("data is not JSON: %s", excerpt(j.Data))
	case len(j.Progress) > 0 && !valid(j.Progress):
		return fmt.Errorf("progress is not JSON: %s", excerpt(j.Progress))
	}
	return nil
}

// notBegun is the error of a Save whose context had ended before. The caller has
// the lock.
func notBegun(ctx context.Context, j *Job) error {
	if j != nil && j.save != nil { // by an earlier Save, perhaps
		return fmt.Errorf("%w: %w", ErrUncertain, context.Cause(ctx))
	}
	return fmt.Errorf("not saved: %w", context.Cause(ctx))
}
