package model_test

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// A stormPlan is what one client does while others do likewise. Each client has jobs of its
// own, so that the outcome does not depend on who is first.
type stormPlan struct {
	actor   *actor
	single  []*beequeue.Job
	batch   []*beequeue.Job
	removes []string
	retries []string
}

// storm has several clients make calls at once, while workers run everything, and
// maybe connections break.
func (m *machine) storm(*actor) {
	everyone := []*actor{m.quick, m.other, m.cut, m.patient, m.forgetful}
	taken := make(map[string]bool)
	pick := func(states ...beequeue.State) []string {
		id := m.model.pickGood(m.rand, states...) // of a bad one nobody knows whether it ran before it was removed
		if id == "" || taken[id] {
			return nil
		}
		taken[id] = true
		return []string{id}
	}
	var plans []stormPlan
	for range 2 + m.rand.IntN(3) {
		a := pickOne(m.rand, everyone...)
		p := stormPlan{actor: a, batch: m.newJobs(a, m.rand.IntN(4))}
		for range m.rand.IntN(4) {
			p.single = append(p.single, m.newJob(a))
		}
		if m.rand.IntN(2) == 0 {
			p.removes = pick()
		}
		if m.rand.IntN(2) == 0 {
			p.retries = pick(beequeue.StateFailed)
		}
		plans = append(plans, p)
	}
	workers := []*actor{pickOne(m.rand, everyone...)}
	if !workers[0].forgets && m.model.lastChances() == 0 && m.rand.IntN(2) == 0 {
		for workers[0] == m.cut || len(workers) == 1 {
			workers = []*actor{pickOne(m.rand, m.quick, m.other), pickOne(m.rand, m.cut, m.patient)}
		}
	}
	m.model.logf("storm of %d clients, %d workers", len(plans), len(workers))

	var runs []*queuetest.Running
	for _, a := range workers {
		runs = append(runs, queuetest.Process(m.t, a.Queue, m.slots(), m.meet))
	}
	ended := make(chan error, len(plans))
	for _, p := range plans {
		go func() { ended <- p.carryOut() }()
	}
	mended := func() {}
	if m.rand.IntN(4) == 0 {
		mended = m.breakNetwork()
	}
	for range plans {
		require.NoError(m.t, queuetest.Receive(m.t, ended, "a client"), m.model.history())
	}
	mended()
	m.awaitIdle()
	for _, r := range runs {
		require.NoError(m.t, r.Stop())
	}

	var saved []*beequeue.Job
	for _, p := range plans {
		saved = append(append(saved, p.single...), p.batch...)
		for _, id := range p.removes {
			m.model.removed(id)
			m.mayLose++
		}
		for _, id := range p.retries {
			m.model.wait(id)
		}
	}
	m.model.added(m.t, saved...)
	m.ranAll(workers[0])
}

// carryOut makes the calls.
func (p stormPlan) carryOut() error {
	ctx, cancel := context.WithTimeout(context.Background(), queuetest.Patience)
	defer cancel()
	for _, job := range p.single {
		if err := job.Save(ctx); err != nil {
			return fmt.Errorf("save: %w", err)
		}
	}
	for _, id := range p.retries {
		if err := p.actor.CreateJob(nil).SetID(id).Retry(ctx); err != nil {
			return fmt.Errorf("retry: %w", err)
		}
	}
	if err := p.actor.SaveAll(ctx, p.batch); err != nil {
		return fmt.Errorf("save all: %w", err)
	}
	for _, id := range p.removes {
		if err := p.actor.RemoveJob(ctx, id); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
	}
	_, err := p.actor.Counts(ctx)
	return err
}
