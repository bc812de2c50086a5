package model_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// Faults of TestStates: records and keys that are wrong, and Redis that goes away.

// plantBad puts a job in waiting whose record cannot be read.
func (m *machine) plantBad(*actor) {
	id := m.model.newName()
	record := pickOne(m.rand, "nonsense", "null", "[1]", `{"options":[]}`, "\xff\xfe\x00")
	m.model.logf("plant %q %q", id, record)
	m.f.Plant(id, record)
	m.model.planted(id, record)
}

// plantGhost puts an id in waiting twice: a new id without a record, or the id of a job that
// waits already. Then it runs everything.
func (m *machine) plantGhost(a *actor) {
	ghost := m.model.newName()
	if len(m.model.waiting) > 0 && m.model.lastChances() == 0 && m.rand.IntN(2) == 0 {
		ghost = m.model.waiting[0] // runs once more, and comes to the same end
		if job := m.model.jobs[ghost]; job.bad != "" || job.fate() != "succeed" {
			return
		}
	}
	m.model.logf("plant the ghost %q", ghost)
	m.f.Must("LPUSH", "waiting", ghost)
	m.f.Must("LPUSH", "waiting", ghost)
	require.NoError(m.t, a.Drain(m.ctx, 1, m.meet))
	m.ranAll(a)
	if job := m.model.jobs[ghost]; job != nil {
		job.runs = m.ran[ghost]
	}
}

// repair damages a queue, and has Audit find it and Repair mend it.
func (m *machine) repair(a *actor) {
	id := m.model.pickGood(m.rand)
	if id == "" {
		return
	}
	job := m.model.jobs[id]
	want := beequeue.Finding{ID: id}
	switch m.rand.IntN(3) {
	case 0:
		want.ID, want.Problem = m.model.newName(), beequeue.ProblemGhost
		for _, state := range queuetest.States {
			if len(want.States) == 0 || m.rand.IntN(2) == 0 {
				m.put(want.ID, state)
				want.States = append(want.States, state)
			}
		}
	case 1:
		m.takeOut(id, job.state)
		want.Problem, want.Now = beequeue.ProblemOrphan, job.home()
	case 2:
		second := beequeue.StateWaiting // of a job that will run
		if job.state == beequeue.StateSucceeded || job.state == beequeue.StateFailed {
			second = beequeue.StateDelayed
		}
		if job.status == beequeue.StatusFailed && job.state == beequeue.StateWaiting {
			return // it was retried: Repair says that it has failed, or the copy
		}
		m.put(id, second)
		for _, state := range queuetest.States {
			if state == second || state == job.state {
				want.States = append(want.States, state)
			}
		}
		if second == job.state {
			want.States = append(want.States, second)
		}
		want.Problem, want.Now = beequeue.ProblemTwice, second
		if second == beequeue.StateDelayed {
			want.Now = job.state
		}
	}
	m.model.logf("repair %v", want)
	found, err := a.Audit(m.ctx)
	require.NoError(m.t, err)
	audited := want
	audited.Now = ""
	require.Equal(m.t, []beequeue.Finding{audited}, found, m.model.history())
	found, err = a.Repair(m.ctx)
	require.NoError(m.t, err)
	require.Equal(m.t, []beequeue.Finding{want}, found, m.model.history())
	if want.Problem != beequeue.ProblemGhost {
		m.moved(id, want.Now)
	}
}

// moved notes that Repair put a job somewhere. Repair may choose its place in waiting.
func (m *machine) moved(id string, now beequeue.State) {
	m.t.Helper()
	job := *m.model.jobs[id]
	m.model.removed(id)
	job.state = now
	if now == beequeue.StateSucceeded || now == beequeue.StateFailed {
		job.stalls = 0
	}
	m.model.jobs[id] = &job
	if now == beequeue.StateWaiting {
		m.model.wait(id)
	}
	waiting := m.f.Waiting()
	require.ElementsMatch(m.t, m.model.waiting, waiting, m.model.history())
	m.model.waiting = m.model.waiting[:0]
	for i := range waiting {
		m.model.waiting = append(m.model.waiting, waiting[len(waiting)-1-i])
	}
}

// put adds an id to a state by hand.
func (m *machine) put(id string, state beequeue.State) {
	m.t.Helper()
	switch state {
	case beequeue.StateWaiting, beequeue.StateActive:
		m.f.Must("LPUSH", string(state), id)
	case beequeue.StateDelayed:
		m.f.Must("ZADD", string(state), strconv.Itoa(int(time.Now().Add(time.Hour).UnixMilli())), id)
	default:
		m.f.Must("SADD", string(state), id)
	}
}

// takeOut takes an id out of a state by hand.
func (m *machine) takeOut(id string, state beequeue.State) {
	m.t.Helper()
	switch state {
	case beequeue.StateWaiting, beequeue.StateActive:
		m.f.Must("LREM", string(state), "0", id)
	case beequeue.StateDelayed:
		m.f.Must("ZREM", string(state), id)
	default:
		m.f.Must("SREM", string(state), id)
	}
}

// junk publishes messages that are no events. Whoever hears them reports it. Redis also
// counts subscribers that are about to end their subscription, and may not report it.
func (m *machine) junk(*actor) {
	m.model.logf("junk")
	events := pickOne(m.rand, "", "null", "{", `{"id":1}`, "\xff")
	m.mayHear += m.f.Number("PUBLISH", "earlierDelayed", pickOne(m.rand, "", "soon", "{}"))
	queuetest.Await(m.t, "somebody to hear junk", func() bool {
		m.mayHear += m.f.Number("PUBLISH", "events", events)
		return m.f.HasError(func(err error) bool {
			var heard *beequeue.EventError
			return errors.As(err, &heard) && strings.HasSuffix(heard.Channel, "events")
		})
	})
}

func (m *machine) flushScripts(*actor) {
	m.model.logf("flush the scripts")
	ctx, cancel := context.WithTimeout(context.Background(), queuetest.Patience)
	defer cancel()
	require.NoError(m.t, m.f.Client.Do(ctx, m.f.Client.B().ScriptFlush().Build()).Error())
}

// outOfMemory saves while Redis has no memory left.
func (m *machine) outOfMemory(*actor) {
	if m.real == nil {
		return
	}
	m.model.logf("no memory")
	m.real.Do(m.t, "CONFIG", "SET", "maxmemory", "1")
	require.ErrorIs(m.t, m.newJob(m.quick).Save(m.ctx), beequeue.ErrOutOfMemory)
	require.ErrorIs(m.t, m.other.SaveAll(m.ctx, m.newJobs(m.other, 3)), beequeue.ErrOutOfMemory)
	m.real.Do(m.t, "CONFIG", "SET", "maxmemory", "0")
}

// breakNetwork breaks the connections of the cut client, or the server, around the next
// step. The returned func ends it.
func (m *machine) breakNetwork() (mended func()) {
	m.faults++
	strike := func(what string, f func()) func() {
		m.model.logf("%s", what)
		timer := time.NewTimer(m.soon())
		done := make(chan struct{})
		go func() {
			defer close(done)
			<-timer.C
			f()
		}()
		return func() {
			<-done
			m.reconnect()
		}
	}
	switch n := m.rand.IntN(20); {
	case n == 0 && m.real != nil:
		m.model.logf("restart")
		m.real.Kill()
		m.real.Restart(m.t)
		m.reconnect()
		return func() {}
	case n < 8:
		return strike("cut", m.proxy.CutAll)
	default:
		m.model.logf("lose replies")
		m.proxy.DropReplies(1+m.rand.IntN(2), queuetest.IsScript)
		return func() {
			m.proxy.DropReplies(0, nil)
			m.reconnect()
		}
	}
}

// reconnect waits until the clients have connections again.
func (m *machine) reconnect() {
	m.t.Helper()
	queuetest.Await(m.t, "connections", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return m.f.Client.Do(ctx, m.f.Client.B().Ping().Build()).Error() == nil &&
			m.through.Do(ctx, m.through.B().Ping().Build()).Error() == nil
	})
}
