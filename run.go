package beequeue

import (
	"encoding/json"
	"errors"
)

// settle decides what becomes of a job, and prepares the call for it.
func (q *Queue) settle(e *runEnd, job *Job, result json.RawMessage, err error) {
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
		e.call = turnOutcome{id: e.run.id, claim: e.run.claim, what: turnPlain, field: job.statusAt - len(statusName) + 1, text: string(result)}
		return
	}
	e.call = e.whole(q)
}

// statusName is how a record names its status, if it was written by Bee-Queue or
// by us.
const statusName = `"status":`

// unchanged tells whether the record needs no more than a new status and a result:
// the handler left the job as it was, and the job was not in succeeded or failed
// before, where a Node process may have left it.
func (r *run) unchanged(job *Job) bool {
	o, p := &job.Options, &r.options
	status := r.record[job.statusAt:job.statusEnd]
	return job == r.job && (status == `"created"` || status == `"retrying"`) && job.Result == nil &&
		job.statusAt >= len(statusName) && r.record[job.statusAt-len(statusName):job.statusAt] == statusName &&
		job.dataEnd > 0 && r.record[job.dataAt:job.dataEnd] == string(job.Data) &&
		r.record[job.progressAt:job.progressEnd] == string(job.Progress) &&
		o.Created.Equal(p.Created) && o.Retries == p.Retries && o.Timeout == p.Timeout &&
		o.DelayUntil.Equal(p.DelayUntil) && o.Backoff == p.Backoff &&
		len(o.Stacktraces) == 0 && len(p.Stacktraces) == 0 && unescaped(r.id)
}

// whole is the call for an outcome with the whole of its record.
func (e *runEnd) whole(q *Queue) turnOutcome {
	config, o := &q.config, e.outcome
	c := turnOutcome{id: e.run.id, claim: e.run.claim, delay: o.delay}
	switch {
	case o.status == StatusSucceeded && config.RemoveOnSuccess, o.status == StatusFailed && config.RemoveOnFailure:
		c.what = turnRemoved
	case o.status == StatusSucceeded:
		c.what = turnSucceeded
	case o.status == StatusFailed:
		c.what = turnFailed
	default:
		c.what = turnRetrying
	}
	if c.what != turnRemoved {
		c.text = e.job.encode()
	}
	if !config.NoEvents {
		data := o.result
		if o.err != nil {
			data = appendString(nil, o.err.Error())
		}
		c.event = encodeEvent(e.run.id, string(o.status), data)
	}
	return c
}

// unreadable is the outcome of a job whose record cannot be read: it fails, and
// the record stays as it is.
func (q *Queue) unreadable(id, claim string, reason error) turnOutcome {
	o := turnOutcome{id: id, claim: claim, what: turnUnreadable, text: reason.Error()}
	var malformed *RecordError
	if errors.As(reason, &malformed) {
		o.text = malformed.Reason
	}
	if !q.config.NoEvents {
		o.event = encodeEvent(id, eventFailed, appendString(nil, reason.Error()))
	}
	return o
}
