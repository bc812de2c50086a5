package model_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// maxStalls is Config.MaxStalls of TestStates.
const maxStalls = 2

// A model is what a queue should hold, without any Redis.
type model struct {
	jobs    map[string]*modelJob
	waiting []string // in the order in which they will run
	last    int64    // automatic id
	names   int      // ids of our own
	log     []string
}

// A modelJob is what a record should say, and where it should be.
type modelJob struct {
	state    beequeue.State
	status   beequeue.Status
	fates    []string // what becomes of its runs, over and over
	bad      string   // its bytes, if these are no record
	retries  int
	failures int // stacktraces
	progress bool
	backoff  bool // its retries are delayed
	delayed  bool // it was made with a delay
	stalls   int
	runs     int // that came to their end
}

func newModel() model { return model{jobs: make(map[string]*modelJob)} }

func (m *model) logf(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
	if len(m.log) > 100 {
		m.log = slices.Delete(m.log, 0, 50)
	}
}

// history is the last steps.
func (m *model) history() string {
	return "after " + strings.Join(m.log[max(0, len(m.log)-15):], "; ")
}

func (m *model) newName() string {
	m.names++
	return "own " + strconv.Itoa(m.names)
}

// clear forgets everything except the names that were given.
func (m *model) clear() {
	clear(m.jobs)
	m.waiting, m.last = nil, 0
}

// counts is what Counts should give.
func (m *model) counts() beequeue.Counts {
	counts := beequeue.Counts{NewestJob: m.last}
	for _, job := range m.jobs {
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
	return counts
}

// ids gives the jobs in the given states, or in any.
func (m *model) ids(states ...beequeue.State) []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		if len(states) == 0 || slices.Contains(states, m.jobs[id].state) {
			ids = append(ids, id)
		}
	}
	return ids
}

// pick gives a job in one of the given states, or in any; "" if there is none.
func (m *model) pick(r *rand.Rand, states ...beequeue.State) string {
	return pickOf(r, m.ids(states...))
}

// pickGood is pick among the jobs that have a record.
func (m *model) pickGood(r *rand.Rand, states ...beequeue.State) string {
	return pickOf(r, slices.DeleteFunc(m.ids(states...), func(id string) bool { return m.jobs[id].bad != "" }))
}

func pickOf(r *rand.Rand, ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return ids[r.IntN(len(ids))]
}

// added takes in jobs that were saved, in whatever order.
func (m *model) added(t *testing.T, jobs ...*beequeue.Job) {
	t.Helper()
	number := func(j *beequeue.Job) int64 {
		n, err := strconv.ParseInt(j.ID, 10, 64)
		if err != nil {
			return 0 // an id of our own
		}
		return n
	}
	numbered := slices.Clone(jobs)
	slices.SortStableFunc(numbered, func(a, b *beequeue.Job) int { return cmp.Compare(number(a), number(b)) })
	for _, job := range numbered {
		if !strings.HasPrefix(job.ID, "own ") {
			m.last++
			require.Equal(t, fmt.Sprint(m.last), job.ID, "automatic id")
		}
	}
	for _, job := range jobs {
		require.NotContains(t, m.jobs, job.ID)
		j := &modelJob{
			state: beequeue.StateWaiting, status: beequeue.StatusCreated, fates: fatesOf(job), retries: job.Options.Retries,
			backoff: job.Options.Backoff.Strategy != "" && job.Options.Backoff.Strategy != beequeue.Immediate,
			delayed: !job.Options.DelayUntil.IsZero(),
		}
		m.jobs[job.ID] = j
		if j.delayed {
			j.state = beequeue.StateDelayed
		} else {
			m.waiting = append(m.waiting, job.ID)
		}
	}
}

// planted takes in a job whose record cannot be read.
func (m *model) planted(id, record string) {
	m.jobs[id] = &modelJob{state: beequeue.StateWaiting, bad: record}
	m.waiting = append(m.waiting, id)
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

// fate is what becomes of a job's next run.
func (j *modelJob) fate() string { return j.fates[j.failures%len(j.fates)] }

// run has a waiting job run once, and reports whether it waits again.
func (j *modelJob) run() (again bool) {
	j.stalls = 0
	if j.bad != "" {
		j.state = beequeue.StateFailed
		return false
	}
	fate := j.fate()
	j.runs++
	if fate == "succeed" || fate == "report" {
		j.state, j.status = beequeue.StateSucceeded, beequeue.StatusSucceeded
		j.progress = j.progress || fate == "report"
		return false
	}
	j.failures++
	if fate == "no retry" || j.retries == 0 {
		j.state, j.status = beequeue.StateFailed, beequeue.StatusFailed
		return false
	}
	j.retries--
	j.status = beequeue.StatusRetrying
	if j.backoff {
		j.state = beequeue.StateDelayed
	}
	return !j.backoff
}

// runAll runs jobs until none waits, and gives the number of runs of bad jobs. Workers that
// forget remove jobs that end.
func (m *model) runAll(forget bool) (bad int) {
	for len(m.waiting) > 0 {
		id := m.waiting[0]
		m.waiting = m.waiting[1:]
		job := m.jobs[id]
		switch again := job.run(); {
		case again:
			m.wait(id)
		case job.bad != "": // its bytes stay
			bad++
		case forget && job.state != beequeue.StateDelayed:
			m.removed(id)
		}
	}
	return bad
}

// handedBack notes that the next n jobs were run in vain. Any of them may be the next now;
// the others come after them.
func (m *model) handedBack(t *testing.T, n int, waiting []string) {
	t.Helper()
	slices.Reverse(waiting)
	require.ElementsMatch(t, m.waiting[:n], waiting[:n], "handed back jobs are the next")
	copy(m.waiting, waiting[:n])
}

// stalled notes that the next job was taken back from a lost worker, and reports whether it
// may run again.
func (m *model) stalled(id string) bool {
	job := m.jobs[id]
	job.stalls++
	if job.stalls <= maxStalls {
		return true
	}
	m.waiting = m.waiting[1:]
	job.state, job.stalls = beequeue.StateFailed, 0
	if job.bad == "" {
		job.status = beequeue.StatusFailed
		job.failures++
	}
	return false
}

// lastChances counts the jobs that may not stall once more.
func (m *model) lastChances() int {
	n := 0
	for _, job := range m.jobs {
		if job.stalls >= maxStalls {
			n++
		}
	}
	return n
}

// home is where Repair puts a job that is nowhere.
func (j *modelJob) home() beequeue.State {
	switch {
	case j.status == beequeue.StatusSucceeded:
		return beequeue.StateSucceeded
	case j.status == beequeue.StatusFailed:
		return beequeue.StateFailed
	case j.status == beequeue.StatusCreated && j.delayed:
		return beequeue.StateDelayed
	}
	return beequeue.StateWaiting
}
