package model_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// Steps of TestStates that call the producer's side.

func (m *machine) save(a *actor) {
	job := m.newJob(a)
	if m.rand.IntN(3) == 0 {
		job.SetID(m.model.newName())
	}
	m.model.logf("save %q %s", job.ID, job.Data)
	require.NoError(m.t, job.Save(m.ctx))
	m.model.added(m.t, job)
}

func (m *machine) saveDelayed(a *actor) {
	job := m.newJob(a).DelayUntil(time.Now().Add(time.Hour))
	m.model.logf("save delayed %s", job.Data)
	require.NoError(m.t, job.Save(m.ctx))
	m.model.added(m.t, job)
}

// newJobs makes jobs for a SaveAll. Some are delayed, some have ids of their own.
func (m *machine) newJobs(a *actor, n int) []*beequeue.Job {
	var batch []*beequeue.Job
	for range n {
		job := m.newJob(a)
		switch m.rand.IntN(4) {
		case 0:
			job.DelayUntil(time.Now().Add(time.Hour))
		case 1:
			job.SetID(m.model.newName())
		}
		batch = append(batch, job)
	}
	return batch
}

func (m *machine) saveAll(a *actor) {
	batch := m.newJobs(a, m.rand.IntN(6))
	twin := m.model.newName()
	twins := []*beequeue.Job{m.newJob(a).SetID(twin), m.newJob(a).SetID(twin)}[:m.rand.IntN(3)]
	m.model.logf("save %d jobs and %d twins", len(batch), len(twins))
	err := a.SaveAll(m.ctx, append(batch, twins...))
	if len(twins) == 2 {
		var failed *beequeue.SaveAllError
		require.ErrorAs(m.t, err, &failed)
		require.Len(m.t, failed.Errors, 1)
		require.ErrorIs(m.t, failed.Errors[twins[1]], beequeue.ErrDuplicateID)
		twins = twins[:1]
	} else {
		require.NoError(m.t, err)
	}
	m.model.added(m.t, append(batch, twins...)...)
}

func (m *machine) saveTaken(a *actor) {
	if id := m.model.pick(m.rand); id != "" {
		m.model.logf("save %q again", id)
		require.ErrorIs(m.t, a.CreateJob(nil).SetID(id).Save(m.ctx), beequeue.ErrDuplicateID)
	}
}

// saveBeyondLimits saves a job that is too large, has too long an id, or finds too many
// jobs waiting, and then a job that may be saved.
func (m *machine) saveBeyondLimits(*actor) {
	m.model.logf("save beyond the limits")
	save := func(job *beequeue.Job) error { return job.Save(m.ctx) }
	require.ErrorIs(m.t, save(m.limited.CreateJob(strings.Repeat("x", maxData))), beequeue.ErrDataTooLarge)
	require.ErrorIs(m.t, save(m.newJob(m.limited).SetID(strings.Repeat("x", maxID+1))), beequeue.ErrIDTooLong)
	require.ErrorIs(m.t, save(m.newJob(m.limited).Backoff("nobody's", time.Hour)), beequeue.ErrUnknownBackoff)
	job := m.newJob(m.limited)
	err := save(job)
	if len(m.model.waiting) >= maxWaiting {
		require.ErrorIs(m.t, err, beequeue.ErrQueueFull)
		return
	}
	require.NoError(m.t, err)
	m.model.added(m.t, job)
}

func (m *machine) remove(a *actor) {
	id := m.model.pick(m.rand)
	m.model.logf("remove %q", id)
	if m.rand.IntN(2) == 0 {
		require.NoError(m.t, a.RemoveJob(m.ctx, id))
	} else {
		require.NoError(m.t, a.CreateJob(nil).SetID(id).Remove(m.ctx))
	}
	m.model.removed(id)
}

func (m *machine) retry(a *actor) {
	id := m.model.pick(m.rand, beequeue.StateFailed)
	m.model.logf("retry %q", id)
	if id == "" {
		require.ErrorIs(m.t, a.CreateJob(nil).SetID("nobody").Retry(m.ctx), beequeue.ErrNotFound)
		return
	}
	require.NoError(m.t, a.CreateJob(nil).SetID(id).Retry(m.ctx))
	m.model.wait(id)
}

func (m *machine) retryOther(a *actor) {
	if id := m.model.pick(m.rand, beequeue.StateWaiting, beequeue.StateDelayed, beequeue.StateSucceeded); id != "" {
		m.model.logf("retry %q, which has not failed", id)
		require.ErrorIs(m.t, a.CreateJob(nil).SetID(id).Retry(m.ctx), beequeue.ErrNotFailed)
	}
}

// look compares a job's record with the model.
func (m *machine) look(a *actor) {
	_, err := a.GetJob(m.ctx, "nobody")
	require.ErrorIs(m.t, err, beequeue.ErrNotFound)
	require.NoError(m.t, a.Ready(m.ctx))
	require.True(m.t, a.IsRunning())
	id := m.model.pick(m.rand)
	if id == "" {
		return
	}
	m.model.logf("look at %q", id)
	want := m.model.jobs[id]
	job, err := a.GetJob(m.ctx, id)
	if want.bad != "" {
		require.True(m.t, queuetest.As[*beequeue.RecordError](err), "%v", err)
		require.Equal(m.t, want.bad, m.f.Record(id), "its bytes stay")
		return
	}
	require.NoError(m.t, err, m.model.history())
	m.requireJob(want, job)
	for _, state := range queuetest.States {
		in, err := job.IsInSet(m.ctx, state)
		require.NoError(m.t, err)
		require.Equal(m.t, want.state == state, in, "%q in %s", id, state)
	}
}

func (m *machine) requireJob(want *modelJob, job *beequeue.Job) {
	m.t.Helper()
	history := m.model.history()
	require.Equal(m.t, want.fates, fatesOf(job), history)
	require.Equal(m.t, want.status, job.Status, history)
	require.Equal(m.t, want.retries, job.Options.Retries, history)
	require.Len(m.t, job.Options.Stacktraces, want.failures, history)
	require.Equal(m.t, want.progress, string(job.Progress) == `"report"`, "progress %s, %s", job.Progress, history)
	result := ""
	if want.state == beequeue.StateSucceeded {
		result = `"` + want.fate() + `"`
	}
	require.Equal(m.t, result, string(job.Result), history)
}

// list pages through the jobs of a state.
func (m *machine) list(a *actor) {
	state := pickOne(m.rand, queuetest.States...)
	size := 1 + m.rand.IntN(10)
	m.model.logf("list %s by %d", state, size)
	var ids, bad []string
	for start := 0; ; start += size {
		jobs, err := a.GetJobs(m.ctx, state, beequeue.Page{Start: start, Size: size})
		n := len(jobs)
		for _, job := range jobs {
			ids = append(ids, job.ID)
			m.requireJob(m.model.jobs[job.ID], job)
		}
		for _, err := range recordErrors(err) {
			bad = append(bad, err.ID)
			n++
		}
		if err != nil {
			require.NotEmpty(m.t, recordErrors(err), "%v", err)
		}
		if n < size {
			break
		}
	}
	require.ElementsMatch(m.t, m.model.ids(state), append(ids, bad...), m.model.history())
	if state == beequeue.StateWaiting && len(bad) == 0 {
		slices.Reverse(ids)
		require.Len(m.t, ids, len(m.model.waiting))
		require.True(m.t, slices.Equal(m.model.waiting, ids), m.model.history())
	}
}

// recordErrors gives all that an error wraps.
func recordErrors(err error) (all []*beequeue.RecordError) {
	switch e := err.(type) { //nolint:errorlint // it looks at each of the tree by itself
	case nil:
	case *beequeue.RecordError:
		all = append(all, e)
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			all = append(all, recordErrors(part)...)
		}
	default:
		all = recordErrors(errors.Unwrap(err))
	}
	return all
}

// waitForEnded waits for a job that has ended.
func (m *machine) waitForEnded(a *actor) {
	id := m.model.pick(m.rand, beequeue.StateSucceeded, beequeue.StateFailed)
	if id == "" {
		_, err := a.CreateJob(nil).SetID("nobody").Wait(m.ctx)
		require.ErrorIs(m.t, err, beequeue.ErrNotFound)
		return
	}
	m.model.logf("wait for %q", id)
	result, err := a.CreateJob(nil).SetID(id).Wait(m.ctx)
	m.requireEnd(id, string(result), err)
}

// requireEnd compares what a Wait returned with the model.
func (m *machine) requireEnd(id, result string, err error) {
	m.t.Helper()
	want := m.model.jobs[id]
	if want.state == beequeue.StateFailed {
		require.True(m.t, queuetest.As[*beequeue.FailedError](err), "%v, %s", err, m.model.history())
		return
	}
	require.NoError(m.t, err, m.model.history())
	require.Equal(m.t, `"`+want.fate()+`"`, result, m.model.history())
}

func (m *machine) audit(a *actor) {
	m.model.logf("audit")
	look := pickOne(m.rand, a.Audit, a.Repair)
	findings, err := look(m.ctx)
	require.NoError(m.t, err)
	require.Empty(m.t, findings, m.model.history())
}

func (m *machine) closeAndReopen(*actor) {
	a := pickOne(m.rand, m.other, m.cut, m.patient, m.forgetful, m.limited)
	m.model.logf("close and reopen")
	require.NoError(m.t, a.Close(m.ctx))
	require.False(m.t, a.IsRunning())
	require.ErrorIs(m.t, m.newJob(a).Save(m.ctx), beequeue.ErrClosed)
	require.ErrorIs(m.t, a.Drain(m.ctx, 1, m.meet), beequeue.ErrClosed)
	require.ErrorIs(m.t, a.RemoveJob(context.Background(), "nobody"), beequeue.ErrClosed)
	m.reopen(a)
}

func (m *machine) destroy(a *actor) {
	m.model.logf("destroy")
	_, err := a.Destroy(m.ctx)
	require.NoError(m.t, err)
	m.model.clear()
}
