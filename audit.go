package beequeue

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gobeequeue/beequeue/internal/store"
)

// A Finding is a job that is not in exactly one state, or has no record. None of a queue's
// processes leaves that behind by itself: somebody changed the keys by hand, a server lost
// writes, or a Node process died between two commands.
type Finding struct {
	// ID is the job's id.
	ID string
	// Problem says what is wrong.
	Problem Problem
	// States are the states the id is in, in the order of a job's life. A state comes
	// twice if its list has the id twice.
	States []State
	// Now is the state that Repair put the job in, or "" if it removed the job.
	Now State
}

// Problem names what is wrong with a job.
type Problem string

const (
	// ProblemGhost is an id that is in a state but has no record.
	ProblemGhost Problem = "ghost"
	// ProblemOrphan is a record whose id is in no state.
	ProblemOrphan Problem = "orphan"
	// ProblemTwice is a job that is in several states, or twice in one of the lists.
	ProblemTwice Problem = "twice"
)

// String names the job, its problem and its states.
func (f Finding) String() string {
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	return fmt.Sprintf("job %q: %s: %s", f.ID, f.Problem, strings.Join(states, ", "))
}

// Audit looks for jobs that are not in exactly one state. It is safe beside running
// workers: it checks each finding again, in one step, so a job that moves meanwhile is not
// a finding. What goes wrong while Audit runs may be missed.
//
// Audit reads the whole queue, in pages, and holds all ids in memory. After Close it
// returns ErrClosed.
func (q *Queue) Audit(ctx context.Context) ([]Finding, error) {
	findings, err := q.audit(ctx, false)
	if err != nil {
		return findings, q.wrap(err, "audit")
	}
	return findings, nil
}

// Repair mends what Audit finds, and returns what it found and where it put each job. It
// is safe beside running workers.
//
// A job that a worker runs stays with that worker. Otherwise a job that has ended stays
// where it ended. Any other goes back to where it will run, because running twice is better
// than never. An id without a record is removed. What was mended by a request whose reply
// was lost is not among the findings. After Close, Repair returns ErrClosed.
func (q *Queue) Repair(ctx context.Context) ([]Finding, error) {
	findings, err := q.audit(ctx, true)
	if err != nil {
		return findings, q.wrap(err, "repair")
	}
	return findings, nil
}

func (q *Queue) audit(ctx context.Context, mend bool) ([]Finding, error) {
	if q.isClosed() {
		return nil, ErrClosed
	}
	suspects, listed, err := q.suspects(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(suspects)
	// To inspect one id, Redis walks both lists. So the more ids are in them, the fewer are
	// inspected in a call.
	const entries = 1_000_000
	most := min(100, 1+entries/(listed+1))
	var findings []Finding
	for chunk := range slices.Chunk(suspects, most) {
		bounded, cancel := q.bound(ctx)
		more, err := q.inspect(bounded, mend, chunk)
		cancel()
		if err != nil {
			return findings, err
		}
		findings = append(findings, more...)
	}
	return findings, nil
}

// auditSeen is what the scan saw of an id: how often it is in a state, and whether it
// has a record.
type auditSeen struct {
	states int
	record bool
}

// suspects reads where all ids are, and returns those that are not in exactly one state,
// or have no record. Jobs move meanwhile, so an id that seems to be in two states, or in
// none, may be all right. It also returns how many ids are in lists.
func (q *Queue) suspects(ctx context.Context) (ids []string, listed int, err error) {
	seen := make(map[string]auditSeen)
	note := func(id string, states int, record bool) {
		s := seen[id]
		seen[id] = auditSeen{s.states + states, s.record || record}
	}
	for _, key := range []store.Key{store.Waiting, store.Active} {
		err := q.store.EachID(ctx, key, func(id string) {
			note(id, 1, false)
			listed++
		})
		if err != nil {
			return nil, 0, err
		}
	}
	for _, key := range []store.Key{store.Delayed, store.Succeeded, store.Failed, store.Jobs} {
		inState := make(map[string]bool) // a scan may give an id more than once
		err := q.store.EachID(ctx, key, func(id string) {
			switch {
			case key == store.Jobs:
				note(id, 0, true)
			case !inState[id]:
				inState[id] = true
				note(id, 1, false)
			}
		})
		if err != nil {
			return nil, 0, err
		}
	}
	for id, s := range seen {
		if s.states != 1 || !s.record {
			ids = append(ids, id)
		}
	}
	return ids, listed, nil
}

// inspect looks at ids for sure, and mends what is wrong if it is to.
func (q *Queue) inspect(ctx context.Context, mend bool, ids []string) ([]Finding, error) {
	views, err := q.store.Inspect(ctx, mend, ids)
	if err != nil {
		return nil, err
	}
	var findings []Finding
	for i, v := range views {
		f := Finding{ID: ids[i], Now: State(v.Now)}
		for _, state := range v.States {
			f.States = append(f.States, State(state))
		}
		switch {
		case !v.Record && len(v.States) > 0:
			f.Problem = ProblemGhost
		case v.Record && len(v.States) == 0:
			f.Problem = ProblemOrphan
		case len(v.States) > 1:
			f.Problem = ProblemTwice
		default:
			continue
		}
		findings = append(findings, f)
	}
	return findings, nil
}
