package beequeue_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// modelMaxStalls is Config.MaxStalls of TestStates.
const modelMaxStalls = 2

// A model is what a queue should hold, without any Redis.
type model struct {
	jobs    map[string]*modelJob
	waiting []string // in the order in which they will run
	last    int64    // automatic id
	names   int      // ids of our own
	log     []string
}

type modelJob struct {
	state   beequeue.State
	job     beequeue.Job // for its fates: its retries and stacktraces are kept up to date
	backoff bool
	stalls  int
}

func newModel() model { return model{jobs: make(map[string]*modelJob)} }

func (m *model) logf(format string, args ...any) { m.log = append(m.log, fmt.Sprintf(format, args...)) }

func (m *model) newName() string {
	m.names++
	return "own " + itoa(m.names)
}

// clear forgets everything but which names were given.
func (m *model) clear() {
	clear(m.jobs)
	m.waiting, m.last = nil, 0
}

// check compares the queue with the model.
func (m *model) check(t *testing.T, f *fixture) {
	t.Helper()
	history := "after " + strings.Join(m.log[max(0, len(m.log)-15):], "; ")
	places := make(map[string][]string)
	counts := beequeue.Counts{NewestJob: m.last}
	for id, job := range m.jobs {
		places[id] = []string{string(job.state)}
		switch job.state {
		case beequeue.StateWaiting:
			counts.Waiting++
		case beequeue.StateActive:
			counts.Active++
		case beequeue.StateDelayed:
			counts.Delayed++
		case beequeue.StateSucceeded:
			counts.Succeeded++
		case beequeue.StateFailed:
			counts.Failed++
		}
	}
	require.Equal(t, places, f.places(), history)
	got, err := f.Counts(bounded(t))
	require.NoError(t, err)
	require.Equal(t, counts, got, history)
	waiting := f.waiting()
	slices.Reverse(waiting)
	require.True(t, slices.Equal(m.waiting, waiting), "%v wait, want %v, %s", waiting, m.waiting, history)
	f.checkLayout()
	require.False(t, t.Failed(), history)
}

// pick gives a job in one of some states, or in any; "" if there is none.
func (m *model) pick(r *rand.Rand, states ...beequeue.State) string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		if len(states) == 0 || slices.Contains(states, m.jobs[id].state) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return ids[r.IntN(len(ids))]
}

// added takes in a job that was saved.
func (m *model) added(t *testing.T, job *beequeue.Job, state beequeue.State) {
	t.Helper()
	if !strings.HasPrefix(job.ID, "own ") {
		m.last++
		require.Equal(t, fmt.Sprint(m.last), job.ID, "automatic id")
	}
	require.NotContains(t, m.jobs, job.ID)
	m.jobs[job.ID] = &modelJob{job: *job, backoff: job.Options.Backoff.Strategy == beequeue.Fixed}
	m.jobs[job.ID].state = state
	if state == beequeue.StateWaiting {
		m.waiting = append(m.waiting, job.ID)
	}
}

func (m *model) removed(id string) {
	delete(m.jobs, id)
	m.waiting = slices.DeleteFunc(m.waiting, func(other string) bool { return other == id })
}

// wait puts a job at the end of those that wait.
func (m *model) wait(id string) {
	m.jobs[id].state = beequeue.StateWaiting
	m.waiting = append(m.waiting, id)
}

// runAll runs what waits until nothing does.
func (m *model) runAll() {
	for len(m.waiting) > 0 {
		id := m.waiting[0]
		m.waiting = m.waiting[1:]
		job := m.jobs[id]
		job.stalls = 0
		fate := fateOf(&job.job)
		if fate == "succeed" {
			job.state = beequeue.StateSucceeded
			continue
		}
		options := &job.job.Options
		options.Stacktraces = append(options.Stacktraces, fate)
		switch {
		case fate == "no retry" || options.Retries == 0:
			job.state = beequeue.StateFailed
		case job.backoff:
			options.Retries--
			job.state = beequeue.StateDelayed
		default:
			options.Retries--
			m.wait(id)
		}
	}
}

// handedBack takes note that the next n jobs were run in vain. Of these, any may
// be the next now; the rest goes after them.
func (m *model) handedBack(t *testing.T, n int, waiting []string) {
	t.Helper()
	slices.Reverse(waiting)
	require.ElementsMatch(t, m.waiting[:n], waiting[:n], "handed back jobs are the next")
	copy(m.waiting, waiting[:n])
}

// stalled takes note that the next job was taken back from a lost worker, and
// tells whether it may run again.
func (m *model) stalled(id string) bool {
	job := m.jobs[id]
	job.stalls++
	if job.stalls <= modelMaxStalls {
		return true
	}
	m.waiting = m.waiting[1:]
	job.state, job.stalls = beequeue.StateFailed, 0
	job.job.Options.Stacktraces = append(job.job.Options.Stacktraces, "stalled")
	return false
}

// lastChances counts the jobs that may not stall once more.
func (m *model) lastChances() int {
	n := 0
	for _, job := range m.jobs {
		if job.stalls >= modelMaxStalls {
			n++
		}
	}
	return n
}
