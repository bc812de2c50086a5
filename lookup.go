package beequeue

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/redis/rueidis"
)

// GetJob returns the job with an id. The error wraps ErrNotFound if there is no such job,
// and a *RecordError if its record cannot be read.
func (q *Queue) GetJob(ctx context.Context, id string) (*Job, error) {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	found, err := q.lookup(ctx, id)
	if err != nil {
		return nil, q.wrap(err, "get job %q", id)
	}
	if found.reason != "" {
		return nil, q.wrap(&RecordError{ID: id, Reason: found.reason}, "get job %q", id)
	}
	job, err := decodeJob(q, id, found.record)
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
	key, err := q.keys.state(state)
	if err != nil {
		return nil, err
	}
	setDefault(&page.Size, 100)
	if page.Start < 0 || page.Size < 0 || page.Start > math.MaxInt-page.Size {
		return nil, fmt.Errorf("page %+v is out of range", page)
	}
	first, last := int64(page.Start), int64(page.Start+page.Size-1)
	var ids []string
	switch state {
	case StateSucceeded, StateFailed:
		ids, err = q.scanSet(ctx, key, page)
	case StateDelayed:
		ids, err = q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Arbitrary("ZRANGE").Keys(key).Args(fmt.Sprint(first), fmt.Sprint(last)).ReadOnly()
		}).AsStrSlice()
	default:
		ids, err = q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Lrange().Key(key).Start(first).Stop(last).Build()
		}).AsStrSlice()
	}
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return q.readJobs(ctx, ids)
}

// scanSet reads a page of a set. SSCAN may return an id more than once.
func (q *Queue) scanSet(ctx context.Context, key string, page Page) ([]string, error) {
	seen := make(map[string]bool)
	var ids []string
	for cursor := uint64(0); ; {
		at := cursor
		entry, err := q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Sscan().Key(key).Cursor(at).Count(int64(q.config.ScanCount)).Build()
		}).AsScanEntry()
		if err != nil {
			return nil, err
		}
		for _, id := range entry.Elements {
			if seen[id] {
				continue
			}
			seen[id] = true
			if len(seen) > page.Start {
				ids = append(ids, id)
			}
			if len(ids) == page.Size {
				return ids, nil
			}
		}
		if cursor = entry.Cursor; cursor == 0 {
			return ids, nil
		}
	}
}

// readJobs fetches the jobs with ids. It leaves out ids whose record has gone meanwhile.
func (q *Queue) readJobs(ctx context.Context, ids []string) ([]*Job, error) {
	records, err := q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Hmget().Key(q.keys.jobs).Field(ids...).Build()
	}).ToMessage()
	if err != nil {
		return nil, err
	}
	found := make([]claimed, len(ids))
	for i, id := range ids {
		found[i] = claimed{id: id, bare: true}
	}
	if err := readRecords(records, found); err != nil {
		return nil, err
	}
	jobs := make([]*Job, 0, len(ids))
	var bad []error
	for _, c := range found {
		if c.bare {
			continue
		}
		job, err := decodeJob(q, c.id, c.record)
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
	c, err := q.counts(ctx)
	if err != nil {
		return c, q.wrap(err, "counts")
	}
	return c, nil
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
	if err := q.remove(ctx, id); err != nil {
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
	if err := q.retry(ctx, j.ID); err != nil {
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
	in, err := q.isInSet(ctx, j.ID, state)
	if err != nil {
		return false, q.wrap(err, "look for job %q in %s", j.ID, state)
	}
	return in, nil
}

func (q *Queue) isInSet(ctx context.Context, id string, state State) (bool, error) {
	key, err := q.keys.state(state)
	if err != nil {
		return false, err
	}
	reply := q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		switch state {
		case StateSucceeded, StateFailed:
			return b.Sismember().Key(key).Member(id).Build()
		case StateDelayed:
			return b.Zscore().Key(key).Member(id).Build()
		default:
			return b.Lpos().Key(key).Element(id).Build()
		}
	})
	if rueidis.IsRedisNil(reply.Error()) {
		return false, nil
	}
	if err := reply.Error(); err != nil {
		return false, err
	}
	if state == StateSucceeded || state == StateFailed {
		return reply.AsBool()
	}
	return true, nil
}
