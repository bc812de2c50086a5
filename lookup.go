package beequeue

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/gobeequeue/beequeue/internal/store"
)

// GetJob returns the job with an id. The error wraps ErrNotFound if there is no such job,
// and a *RecordError if its record cannot be read.
func (q *Queue) GetJob(ctx context.Context, id string) (*Job, error) {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	found, err := q.store.Lookup(ctx, id)
	if err != nil {
		return nil, q.wrap(err, "get job %q", id)
	}
	if found.Reason != "" {
		return nil, q.wrap(&RecordError{ID: id, Reason: found.Reason}, "get job %q", id)
	}
	job, err := decodeJob(q, id, found.Record)
	if err != nil {
		return nil, q.wrap(err, "get job %q", id)
	}
	return job, nil
}

// Page selects a part of the jobs of one state.
type Page struct {
	Start int // number of jobs to skip; default 0
	Size  int // largest number of jobs to return; default 100
}

// GetJobs returns jobs that are in a state. As in Bee-Queue, waiting and active are listed
// from the newest job, so the next job to run is the last one in waiting. Delayed jobs are
// listed by due time, and succeeded and failed ones in no particular order. For these two,
// GetJobs reads everything up to the end of the page, and paging is exact only while the
// state does not change.
//
// Jobs whose records cannot be read are left out, and the error wraps a *RecordError for
// each. The other jobs are returned beside the error.
func (q *Queue) GetJobs(ctx context.Context, state State, page Page) ([]*Job, error) {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	jobs, err := q.getJobs(ctx, state, page)
	if err != nil {
		return jobs, q.wrap(err, "get %s jobs", state)
	}
	return jobs, nil
}

// getJobs does the work of GetJobs.
func (q *Queue) getJobs(ctx context.Context, state State, page Page) ([]*Job, error) {
	key, err := keyOf(state)
	if err != nil {
		return nil, err
	}
	setDefault(&page.Size, 100)
	if page.Start < 0 || page.Size < 0 || page.Start > math.MaxInt-page.Size {
		return nil, fmt.Errorf("page %+v is out of range", page)
	}
	ids, err := q.store.Page(ctx, key, page.Start, page.Size, q.config.ScanCount)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return q.readJobs(ctx, ids)
}

// readJobs fetches the jobs with ids. It leaves out ids whose record has gone meanwhile.
func (q *Queue) readJobs(ctx context.Context, ids []string) ([]*Job, error) {
	found := make([]store.Claimed, len(ids))
	for i, id := range ids {
		found[i] = store.Claimed{ID: id, NoRecord: true}
	}
	if err := q.store.ReadRecords(ctx, found); err != nil {
		return nil, err
	}
	jobs := make([]*Job, 0, len(ids))
	var bad []error
	for _, c := range found {
		if c.NoRecord {
			continue
		}
		job, err := decodeJob(q, c.ID, c.Record)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		jobs = append(jobs, job)
	}
	return jobs, errors.Join(bad...)
}

// Counts holds the number of jobs in each state. Bee-Queue calls it health.
type Counts struct {
	Waiting, Active, Delayed, Succeeded, Failed int64
	// NewestJob is the newest automatic id, or zero if there was none yet.
	NewestJob int64
}

// Counts returns the number of jobs in each state, read in one step.
func (q *Queue) Counts(ctx context.Context) (Counts, error) {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	c, err := q.store.Counts(ctx)
	if err != nil {
		return Counts{}, q.wrap(err, "counts")
	}
	return Counts(c), nil
}

// RemoveJob removes a job, whatever state it is in. As in Bee-Queue it is no error if the
// job does not exist. If the job is running, its handler's context is cancelled at the
// worker's next heartbeat, and the outcome of the run is not recorded.
func (q *Queue) RemoveJob(ctx context.Context, id string) error {
	if q.isClosed() {
		return q.wrap(ErrClosed, "remove job %q", id)
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	if err := q.store.Remove(ctx, &q.control, id); err != nil {
		return q.wrap(err, "remove job %q", id)
	}
	return nil
}

// Remove removes the job from the queue; see Queue.RemoveJob.
func (j *Job) Remove(ctx context.Context) error {
	j.saved = offset{} // events heard so far no longer tell how the job ends
	return j.queue.RemoveJob(ctx, j.ID)
}

// Retry puts a job that failed for good back into waiting. If the job is not in failed,
// nothing changes and the error wraps ErrNotFailed. The number of its remaining retries
// stays as it is.
func (j *Job) Retry(ctx context.Context) error {
	q := j.queue
	if q.isClosed() {
		return q.wrap(ErrClosed, "retry job %q", j.ID)
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	j.saved = offset{} // events heard so far no longer tell how the job ends
	if err := q.store.Retry(ctx, &q.control, j.ID); err != nil {
		return q.wrap(err, "retry job %q", j.ID)
	}
	return nil
}

// IsInSet reports whether the job is in a state right now. Bee-Queue's isInSet knows only
// succeeded and failed; IsInSet knows every state. For waiting and active it takes time
// in proportion to their length.
func (j *Job) IsInSet(ctx context.Context, state State) (bool, error) {
	q := j.queue
	ctx, cancel := q.bound(ctx)
	defer cancel()
	key, err := keyOf(state)
	in := false
	if err == nil {
		in, err = q.store.Has(ctx, key, j.ID)
	}
	if err != nil {
		return false, q.wrap(err, "look for job %q in %s", j.ID, state)
	}
	return in, nil
}

// keyOf returns the key that holds the ids of a state.
func keyOf(s State) (store.Key, error) {
	switch s {
	case StateWaiting:
		return store.Waiting, nil
	case StateActive:
		return store.Active, nil
	case StateDelayed:
		return store.Delayed, nil
	case StateSucceeded:
		return store.Succeeded, nil
	case StateFailed:
		return store.Failed, nil
	}
	return 0, fmt.Errorf("unknown state %q", s)
}
