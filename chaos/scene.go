package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/chaos/internal/actor"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// A scenario breaks something and says what must hold.
type scenario struct {
	name  string
	fault string // in the table
	bound string // what beequeue must do, in the table
	needs need
	run   func(s *scene)
}

// need says what a library must be able to do for a scenario to make sense.
type need struct{ cluster, sentinel, beeQueueFormat, replicas bool }

// settings of all scenarios.
const (
	stall       = time.Second
	concurrency = 5
	queueName   = "chaos"

	// resume bounds the time between the end of a fault and the next job's start.
	resume = 2 * time.Second
)

// A scene is one scenario with one library: its servers, its processes, and what
// is seen of them.
type scene struct {
	tb      testing.TB
	ctx     context.Context //nolint:containedctx // of this scene
	library *library
	bounded bool

	dir       string
	url       string // where the processes connect
	direct    rueidis.Client
	watch     *watch
	processes []*process
	patience  time.Duration
	interval  time.Duration // between two looks at Redis
	replicas  int           // that must have a job before its save succeeds
	mayLose   int           // jobs that replication had not copied
	lagging   bool          // how many that are depends on how fast the machine is
	mayFail   int           // jobs that are to
	mayDie    bool          // workers, of their jobs
	cut       bool          // the scenario did not come to its end

	measures []string // what was seen, in words
	problems []string // what should not have been
	delays   []string // what should not have been, and may be a busy machine's doing
}

// close ends the processes, and then what looks at Redis.
func (s *scene) close() {
	for _, p := range s.processes {
		p.kill()
	}
	if s.watch != nil {
		s.watch.close()
	}
	if s.direct != nil {
		s.direct.Close()
	}
}

// check takes note of what should hold and does not.
func (s *scene) check(holds bool, format string, args ...any) {
	if !holds {
		s.problems = append(s.problems, fmt.Sprintf(format, args...))
	}
}

func (s *scene) measure(format string, args ...any) {
	s.measures = append(s.measures, fmt.Sprintf(format, args...))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// size is a number of jobs or rounds, less of them in the bounded form.
func (s *scene) size(whole, bounded int) int {
	if s.bounded {
		return bounded
	}
	return whole
}

// await polls until a condition holds.
func (s *scene) await(what string, holds func() bool) {
	s.tb.Helper()
	if !s.awaits(s.patience, holds) {
		panic(gaveUp{fmt.Sprintf("waited %v in vain for %s%s", s.patience, what, s.last())})
	}
}

func (s *scene) awaits(most time.Duration, holds func() bool) bool {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		case <-s.ctx.Done():
			s.tb.Fatalf("%v", context.Cause(s.ctx))
		}
	}
	return true
}

// pass lets time pass: how long a fault lasts.
func (s *scene) pass(d time.Duration) {
	s.awaits(d, func() bool { return false })
}

// last is the end of what the processes wrote, to find out what was wrong.
func (s *scene) last() string {
	var b strings.Builder
	if s.library.name != ours {
		return ""
	}
	for _, p := range s.processes {
		fmt.Fprintf(&b, "\n--- %s: %d entries", p.name, len(p.entries()))
		for _, e := range p.entries()[max(0, len(p.entries())-3):] {
			fmt.Fprintf(&b, "\n%s %d %s %s", e.What, e.N, e.ID, e.Text)
		}
		if text := p.stderr.tail(); text != "" {
			fmt.Fprintf(&b, "\n%s", text)
		}
	}
	return b.String()
}

// look begins to watch Redis, at a URL that no fault comes between.
func (s *scene) look(url string) {
	s.tb.Helper()
	client, err := beequeue.Dial(s.ctx, url)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	s.direct = client
	s.watch = newWatch(client, s.library.layout, s.interval)
}

// redis starts a server of its own for the scene, and keeps what it was told over
// a kill.
func (s *scene) redis(args ...string) *redistest.Server {
	s.tb.Helper()
	server := redistest.Start(s.tb, append([]string{"--appendonly", "yes", "--appendfsync", "always"}, args...)...)
	s.url = server.URL()
	s.look(s.url)
	return server
}

// do runs a command on the servers that the scene looks at.
func (s *scene) do(words ...string) rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
	defer cancel()
	return s.direct.Do(ctx, command(s.direct.B(), words))
}

// command builds one whose first argument, if it has any, is a key.
func command(b rueidis.Builder, words []string) rueidis.Completed {
	c := b.Arbitrary(words[0])
	if len(words) > 1 {
		c = c.Keys(words[1]).Args(words[2:]...)
	}
	return c.Build()
}

// must is do for commands that must succeed.
func (s *scene) must(words ...string) {
	s.tb.Helper()
	if err := s.do(words...).Error(); err != nil && !rueidis.IsRedisNil(err) {
		s.tb.Fatalf("%s: %v", strings.Join(words[:min(3, len(words))], " "), err)
	}
}

// start starts a process.
func (s *scene) start(o actor.Order, name string) *process {
	s.tb.Helper()
	if o.URL == "" {
		o.URL = s.url
	}
	o.Queue = queueName
	o.Ledger = filepath.Join(s.dir, fmt.Sprintf("%d-%s", len(s.processes), name))
	p, err := startProcess(s.library.command, o, name)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	s.processes = append(s.processes, p)
	return p
}

// mostJobs is more than an open producer gets saved.
const mostJobs = 1_000_000

// produce starts a producer.
func (s *scene) produce(o actor.Order) *process {
	s.tb.Helper()
	o.Role, o.Replicas = actor.Producer, s.replicas
	for _, p := range s.processes {
		if p.order.Role == actor.Producer {
			o.From = max(o.From, p.order.From+p.order.Count)
			if p.order.Open {
				o.From = max(o.From, p.order.From+mostJobs)
			}
		}
	}
	return s.start(o, "producer")
}

// fill saves jobs, and returns when it is done.
func (s *scene) fill(count int, job actor.Job) {
	s.tb.Helper()
	s.ended(s.produce(actor.Order{Count: count, Lines: 50, Job: job}))
}

// work starts a worker.
func (s *scene) work(o actor.Order) *process {
	s.tb.Helper()
	o.Role = actor.Worker
	if o.Concurrency == 0 {
		o.Concurrency = concurrency
	}
	if o.Grace == 0 {
		o.Grace = 5000
	}
	o.Stall = int(stall.Milliseconds())
	return s.start(o, "worker")
}

// workers starts some, and waits until all are at work.
func (s *scene) workers(n int) []*process {
	s.tb.Helper()
	var all []*process
	for range n {
		all = append(all, s.work(actor.Order{}))
	}
	for _, p := range all {
		s.await("a worker's first job", func() bool { return p.count(actor.Start) > 0 })
	}
	return all
}

// ended waits for a process to end by itself.
func (s *scene) ended(p *process) {
	s.tb.Helper()
	s.await("the end of a "+p.name, func() bool { return p.exited() })
	s.check(p.count(actor.Exit) == 1, "a %s ended of something else: %s", p.name, p.stderr.headline())
}

// drained lets the open producers end, and waits until nothing is left to do, as long as
// is reasonable.
func (s *scene) drained() {
	s.tb.Helper()
	for _, p := range s.processes {
		if p.order.Role == actor.Producer && !p.killed {
			if p.order.Open { // and minds the signal
				s.await("a producer's connection", func() bool { return p.count(actor.Ready) > 0 || p.exited() })
				p.signal(syscall.SIGTERM)
			}
			s.ended(p)
		}
	}
	saved := time.Now()
	last, since := -1, saved
	s.awaits(10*s.patience, func() bool {
		left := s.watch.leftSince(saved)
		if left != last {
			last, since = left, time.Now()
		}
		return left == 0 || time.Since(since) > s.patience
	})
}

// resumed waits until each worker has started a job after a moment, and each producer
// has saved one. There must be some of both.
func (s *scene) resumed(after time.Time, what string) {
	s.tb.Helper()
	s.resumes(after, actor.Worker, actor.Start, strings.TrimSpace("work resumed "+what)+" after")
	s.resumes(after, actor.Producer, actor.Saved, strings.TrimSpace("saves resumed "+what)+" after")
}

func (s *scene) resumes(after time.Time, role, what, words string) {
	s.tb.Helper()
	var alive []*process
	for _, p := range s.processes {
		if p.order.Role == role && !p.exited() {
			alive = append(alive, p)
		}
	}
	s.check(len(alive) > 0, "no %s was left when the fault was over", role)
	var last time.Time
	s.await("work to go on", func() bool {
		for _, p := range alive {
			first := p.first(after, what)
			if first.IsZero() && !p.exited() {
				return false
			}
			if first.After(last) {
				last = first
			}
		}
		return true
	})
	if !last.IsZero() {
		s.within(after, last, resume, words)
	}
}

// between counts what happened from one moment to another.
func (s *scene) between(from, to time.Time, what string) int {
	n := 0
	for _, p := range s.processes {
		for _, e := range p.entries() {
			if at := e.Time(); e.What == what && at.After(from) && at.Before(to) {
				n++
			}
		}
	}
	return n
}

// breaks waits out a fault, and checks that nothing is saved meanwhile. A save that was on
// its way when the fault began may tell of its end later.
func (s *scene) breaks(d time.Duration) {
	began := time.Now()
	s.pass(d)
	ended := time.Now()
	saved := 0
	s.eachSaved(func(from, to time.Time) {
		if from.After(began) && to.Before(ended) {
			saved++
		}
	})
	s.check(saved == 0, "%d jobs were saved during the fault", saved)
}

// eachSaved calls f for each save that succeeded, with its beginning and its end.
func (s *scene) eachSaved(f func(from, to time.Time)) {
	for _, p := range s.processes {
		saving := make(map[int]time.Time) // since when
		for _, e := range p.entries() {
			switch e.What {
			case actor.Save:
				saving[e.N] = e.Time()
			case actor.Saved:
				f(saving[e.N], e.Time())
			}
		}
	}
}

// count counts entries of all processes.
func (s *scene) count(what string) int {
	n := 0
	for _, p := range s.processes {
		n += p.count(what)
	}
	return n
}

// every calls f at an interval until what it returns is called.
func (s *scene) every(interval time.Duration, f func() error) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := f(); err != nil {
					ended <- err
					return
				}
			case <-ctx.Done():
				ended <- nil
				return
			}
		}
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			s.tb.Fatalf("%v", err)
		}
	}
}
