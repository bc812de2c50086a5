package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "first seed of TestStates; 0 is a new one each time")
	seedsFlag = flag.Int("seeds", 1, "how many seeds TestStates runs")
	stepsFlag = flag.Int("steps", 150, "how many steps each of them has")
)

// Several clients make random public calls, with faults under them. After each step, every
// job is in the place that a simple model (model_test.go) says, and all counts agree. The
// steps are in calls_test.go, work_test.go, faults_test.go and storm_test.go.
func TestStates(t *testing.T) {
	t.Parallel()
	first := *seedFlag
	if first == 0 {
		first = rand.Uint64()
	}
	for i := range *seedsFlag {
		seed := first + uint64(i) //nolint:gosec // i counts up from 0
		for _, kind := range []string{"miniredis", "redis"} {
			t.Run(fmt.Sprintf("%s/%d", kind, seed), func(t *testing.T) {
				t.Parallel()
				t.Logf("run again with: go test ./test/model -run TestStates/%s -seed %d -steps %d", kind, seed, *stepsFlag)
				newMachine(t, kind, seed).run(*stepsFlag)
			})
		}
	}
}

// A machine makes calls and keeps the model in step.
type machine struct {
	t     *testing.T
	f     *queuetest.Fixture
	began time.Time
	rand  *rand.Rand
	model model
	ctx   context.Context // of the step under way

	real    *redistest.Server // nil: it is a miniredis
	proxy   *redistest.Proxy  // before the client called cut
	through rueidis.Client    // that goes through it
	faults  int               // that break connections
	mayLose int               // jobs that were removed, maybe while they ran
	mayHear int64             // junk on the channels

	mu  sync.Mutex
	ran map[string]int // runs that came to their end, by id

	quick, other, patient, cut, forgetful, limited *actor
}

// An actor is a client of the queue, as each process has.
type actor struct {
	*beequeue.Queue
	client  rueidis.Client
	config  beequeue.Config
	forgets bool
}

// Limits of the limited actor.
const (
	maxData    = 200
	maxID      = 20
	maxWaiting = 4
)

// mine is a backoff strategy of our own.
const mine beequeue.Strategy = "mine"

func newMachine(t *testing.T, kind string, seed uint64) *machine {
	t.Helper()
	m := &machine{t: t, rand: rand.New(rand.NewPCG(seed, 0)), model: newModel(), ran: make(map[string]int)}
	s := &queuetest.Server{Name: kind}
	if kind == "miniredis" {
		s.Own = miniredis.RunT(t)
	} else {
		if testing.Short() {
			t.Skip("a real redis-server takes too long to start for -short")
		}
		m.real = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always") // of its own, to be killed
		s.Start = func(testing.TB) (string, []*redistest.Server) { return m.real.URL(), nil }
	}
	config := beequeue.Config{
		MaxStalls: maxStalls, ShutdownTimeout: 10 * time.Millisecond,
		Backoffs: map[beequeue.Strategy]beequeue.BackoffFunc{
			mine: func(*beequeue.Job) time.Duration { return time.Hour },
		},
	}
	m.began = time.Now()
	m.f = queuetest.Open(t, s, config)
	m.f.Faulty = true // m.checkErrors does it
	var address string
	for address = range m.f.Client.Nodes() {
	}
	m.proxy = redistest.StartProxy(t, address)
	m.through = queuetest.Dial(t, m.proxy.URL(), func(o *rueidis.ClientOption) { o.AlwaysRESP2 = m.real == nil })

	m.quick = &actor{Queue: m.f.Queue, client: m.f.Client, config: config}
	m.other = m.peer(m.f.Client, config)
	m.cut = m.peer(m.through, config)
	config.ShutdownTimeout = queuetest.Patience
	m.patient = m.peer(m.f.Client, config)
	forgetful := config
	forgetful.RemoveOnSuccess, forgetful.RemoveOnFailure, forgetful.NoEvents = true, true, true
	m.forgetful = m.peer(m.f.Client, forgetful)
	m.forgetful.forgets = true
	config.MaxData, config.MaxID, config.MaxWaiting = maxData, maxID, maxWaiting
	m.limited = m.peer(m.f.Client, config)
	m.f.OnJobSucceeded(func(string, json.RawMessage) {}) // so that somebody hears junk
	return m
}

func (m *machine) peer(client rueidis.Client, config beequeue.Config) *actor {
	m.t.Helper()
	a := &actor{client: client, config: config}
	m.reopen(a)
	m.t.Cleanup(func() { m.f.CloseQueue(a.Queue) })
	return a
}

// reopen gives an actor a new queue value.
func (m *machine) reopen(a *actor) {
	m.t.Helper()
	q, err := beequeue.New(a.client, m.f.Name(), a.config)
	require.NoError(m.t, err)
	q.OnError(m.f.GotError)
	a.Queue = q
}

// run makes that many steps.
func (m *machine) run(steps int) {
	m.t.Helper()
	const calm, whatever = false, true
	kinds := []struct {
		weight int
		faults bool // connections may break meanwhile
		do     func(a *actor)
	}{
		{8, whatever, m.save},
		{5, whatever, m.saveAll},
		{2, whatever, m.saveTaken},
		{4, whatever, m.saveDelayed},
		{2, whatever, m.saveBeyondLimits},
		{6, whatever, m.remove},
		{4, whatever, m.retry},
		{2, whatever, m.retryOther},
		{6, whatever, m.look},
		{3, whatever, m.list},
		{2, whatever, m.waitForEnded},
		{2, whatever, m.audit},
		{2, whatever, m.closeAndReopen},
		{1, whatever, m.destroy},

		{3, whatever, m.drain},
		{3, whatever, m.comeDue},
		{3, whatever, m.process},
		{2, whatever, m.waitForRun},
		{3, whatever, m.handBack},
		{2, whatever, m.removeRunning},
		{2, calm, m.takeFromRunning}, // a check that is repeated within the interval says nothing
		{5, calm, m.stall},
		{3, whatever, m.storm},

		{2, whatever, m.plantBad},
		{2, whatever, m.plantGhost},
		{3, calm, m.repair}, // which finds nothing when it is repeated
		{1, calm, m.junk},   // which whoever is cut off does not hear
		{2, whatever, m.flushScripts},
		{1, calm, m.outOfMemory}, // a Save that has lost a reply does not know then
	}
	total := 0
	for _, kind := range kinds {
		total += kind.weight
	}
	for range steps {
		ctx, cancel := context.WithTimeout(context.Background(), 2*queuetest.Patience)
		m.ctx = ctx
		a := pickOne(m.rand, m.quick, m.other, m.cut, m.patient, m.forgetful)
		mended := func() {}
		n := m.rand.IntN(total)
		for _, kind := range kinds {
			if n -= kind.weight; n >= 0 {
				continue
			}
			if kind.faults && m.rand.IntN(15) == 0 {
				a = m.cut
				mended = m.breakNetwork()
			}
			kind.do(a)
			break
		}
		mended()
		m.check()
		cancel()
	}
	for _, a := range []*actor{m.quick, m.other, m.cut, m.patient, m.forgetful, m.limited} {
		require.NoError(m.t, a.Close(queuetest.Bounded(m.t)))
	}
	m.checkErrors()
}

// pickOne gives one of the values.
func pickOne[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// check compares the queue with the model, in two calls.
func (m *machine) check() {
	m.t.Helper()
	f, history := m.f, m.model.history()
	b, k := f.Client.B(), f.KeyPrefix()
	var replies [][]string
	for _, r := range f.Client.DoMulti(m.ctx,
		b.Lrange().Key(k+"waiting").Start(0).Stop(-1).Build().Pin(),
		b.Lrange().Key(k+"active").Start(0).Stop(-1).Build().Pin(),
		b.Smembers().Key(k+"succeeded").Build().Pin(),
		b.Smembers().Key(k+"failed").Build().Pin(),
		b.Zrange().Key(k+"delayed").Min("0").Max("-1").Build().Pin(),
		b.Hkeys().Key(k+"jobs").Build().Pin(),
		b.Hkeys().Key(k+"owners").Build().Pin(),
		b.Hkeys().Key(k+"reasons").Build().Pin(),
	) {
		reply, err := r.AsStrSlice()
		require.NoError(m.t, err, history)
		replies = append(replies, reply)
	}
	places := make(map[string]string)
	for i, state := range []beequeue.State{
		beequeue.StateWaiting, beequeue.StateActive, beequeue.StateSucceeded, beequeue.StateFailed, beequeue.StateDelayed,
	} {
		for _, id := range replies[i] {
			require.Empty(m.t, places[id], "%q is in %s, too, %s", id, state, history)
			places[id] = string(state)
		}
	}
	want := make(map[string]string, len(m.model.jobs))
	for id, job := range m.model.jobs {
		want[id] = string(job.state)
	}
	require.Equal(m.t, want, places, history)
	records, owners, reasons := replies[5], replies[6], replies[7]
	slices.Sort(records)
	require.True(m.t, slices.Equal(m.model.ids(), records), "records of %v, want %v, %s", records, m.model.ids(), history)
	require.Empty(m.t, owners, "owners of runs that are over, %s", history)
	for _, id := range reasons {
		require.Equal(m.t, string(beequeue.StateFailed), places[id], "%q has a reason, %s", id, history)
	}
	waiting := replies[0]
	slices.Reverse(waiting)
	require.True(m.t, slices.Equal(m.model.waiting, waiting), "%v wait, want %v, %s", waiting, m.model.waiting, history)

	m.mu.Lock()
	for id, times := range m.ran {
		if job := m.model.jobs[id]; job == nil {
			delete(m.ran, id) // the id may come again
		} else if job.runs != times {
			m.mu.Unlock()
			require.Equal(m.t, job.runs, times, "runs of %q, %s", id, history)
		}
	}
	m.mu.Unlock()
	for id, job := range m.model.jobs {
		require.True(m.t, job.runs == 0 || m.ran[id] > 0, "%q has not run, %s", id, history)
	}

	counts, err := m.quick.Counts(m.ctx)
	require.NoError(m.t, err, history)
	require.Equal(m.t, m.model.counts(), counts, history)
	m.checkErrors()
}

// checkErrors looks at the errors that OnError got and no step has asked for. They must come
// from connections that a fault broke, or from jobs that were removed while they ran.
func (m *machine) checkErrors() {
	m.t.Helper()
	for _, err := range m.f.TakeErrors() {
		switch {
		case errors.Is(err, beequeue.ErrOwnershipLost):
			m.mayLose--
			require.GreaterOrEqual(m.t, m.mayLose, 0, "%v, %s", err, m.model.history())
		case queuetest.As[*beequeue.EventError](err):
			m.mayHear--
			require.GreaterOrEqual(m.t, m.mayHear, int64(0), "%v, %s", err, m.model.history())
		case m.faults > 0 && isOfConnection(err), queuetest.Excuses(err, m.began):
		default:
			require.NoError(m.t, err, "OnError was called, %s", m.model.history())
		}
	}
	m.mayLose = min(m.mayLose, 3) // most that were removed did not run
}

// isOfConnection reports whether an error may come from a connection that breaks, or from a
// server that starts.
func isOfConnection(err error) bool {
	return queuetest.As[*net.OpError](err) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, rueidis.ErrClosing) ||
		errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "LOADING")
}

// newJob makes a job whose data is its fates: what becomes of each of its runs.
func (m *machine) newJob(a *actor) *beequeue.Job {
	if m.rand.IntN(20) == 0 {
		return a.CreateJob([]string{"time out"}).Timeout(time.Millisecond).Retries(m.rand.IntN(2))
	}
	all := []string{"succeed", "report", "fail", "panic", "no retry"}
	var fates []string
	for range 4 {
		fates = append(fates, pickOne(m.rand, all...))
	}
	job := a.CreateJob(fates).Retries(m.rand.IntN(4))
	if m.rand.IntN(2) == 0 {
		job.Backoff(pickOne(m.rand, beequeue.Fixed, beequeue.Exponential, mine), time.Hour)
	}
	return job
}

// fatesOf reads what is to become of a job's runs.
func fatesOf(job *beequeue.Job) (fates []string) {
	if err := json.Unmarshal(job.Data, &fates); err != nil || len(fates) == 0 {
		return []string{"no fates"}
	}
	return fates
}

// meet is the handler that lets a job meet its fate.
func (m *machine) meet(ctx context.Context, job *beequeue.Job) (any, error) {
	m.mu.Lock()
	m.ran[job.ID]++
	m.mu.Unlock()
	fates := fatesOf(job)
	switch fate := fates[len(job.Options.Stacktraces)%len(fates)]; fate {
	case "succeed":
		return fate, nil
	case "report":
		return fate, job.ReportProgress(ctx, fate)
	case "panic":
		panic(fate)
	case "no retry":
		return nil, beequeue.ErrNoRetry
	case "time out":
		<-ctx.Done()
		return nil, ctx.Err()
	default:
		return nil, errors.New(fate)
	}
}
