package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// A soak is half of full speed for a long time, with a fault every ten seconds. One
// producer and one worker live through all of it: what they hold in the end must be
// what they held in the beginning.
type soak struct {
	*scene

	out    io.Writer
	length time.Duration
	server *redistest.Server
	gate   *redistest.Gate
	proxy  *redistest.Proxy
	tally  *actor.Tally
	file   string // the tally's

	begun     time.Time
	rate      int // jobs a second
	mine      int // of these, those of the steady producer
	steady    []*process
	worker    *process // that faults come upon
	producer  *process // likewise
	producers []*process
	memory    []usage // Redis's
	faults    map[string]int
}

const (
	soakPeriod      = 10 * time.Second // from one fault to the next
	soakConcurrency = 50
	soakLines       = 50
	soakTrial       = 10 * time.Second // how long full speed is measured
)

// soaks runs one, and fails if anything was lost or has grown.
func soaks(ctx context.Context, l *library, length time.Duration, w io.Writer) error {
	if least := 6 * soakPeriod; length < least {
		return fmt.Errorf("a soak of %v is too short: at least %v", length, least)
	}
	return redistest.Program("soak", func(tb testing.TB) error {
		s := &scene{
			tb: tb, ctx: ctx, library: l, dir: tb.TempDir(), patience: time.Minute, interval: 500 * time.Millisecond,
		}
		defer s.close()
		k := &soak{scene: s, out: w, length: length, faults: make(map[string]int)}
		if s.plays(k.run) {
			k.judge()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if all := append(s.problems, s.delays...); len(all) > 0 {
			return errors.New(strings.Join(all, "; "))
		}
		fmt.Fprintln(w, "ok")
		return nil
	})
}

func (k *soak) tell(format string, args ...any) { fmt.Fprintf(k.out, format+"\n", args...) }

func (k *soak) run() {
	k.server = redistest.Start(k.tb, "--appendonly", "yes", "--maxmemory-policy", "noeviction")
	k.look(k.server.URL())
	k.gate = redistest.StartGate(k.tb, k.server.Addr)
	k.proxy = redistest.StartProxy(k.tb, k.gate.Addr)
	k.url = k.proxy.URL()
	k.rate = k.fullSpeed() / 2

	seconds := int(k.length.Seconds())
	k.mine = k.rate * 3 / 4
	k.newTally((k.rate + 1) * seconds)
	k.begun = time.Now()
	k.steady = []*process{k.produces(0, k.mine*seconds, k.mine), k.works()}
	k.producer = k.produces(k.mine*seconds, k.others(), k.rate-k.mine)
	k.worker = k.works()

	kinds := k.kinds()
	var order []int
	for k.left() > soakPeriod {
		k.pass(soakPeriod - time.Since(k.begun)%soakPeriod)
		k.sample()
		if len(order) == 0 {
			order = rand.Perm(len(kinds)) //nolint:gosec // an order, no secret
		}
		kind := kinds[order[0]]
		order = order[1:]
		k.faults[kind.name]++
		kind.run()
	}
	// A machine that was busy otherwise has them behind: as long as they go on, they may.
	for _, p := range []*process{k.steady[0], k.producer} {
		for saved := -1; !k.awaits(soakPeriod, p.exited); {
			before := saved
			saved = k.saved()
			k.check(saved > before, "a producer does not end")
			if saved == before {
				break
			}
		}
	}
	k.await("the end of the jobs", func() bool { return k.watch.left() == 0 })
	k.sample()
}

func (k *soak) left() time.Duration { return k.length - time.Since(k.begun) }

// others is how many jobs there is still time for, of the producer that faults come upon.
func (k *soak) others() int { return int(k.left().Seconds() * float64(k.rate-k.mine)) }

func (k *soak) newTally(jobs int) {
	k.file = filepath.Join(k.dir, fmt.Sprintf("tally-%d", jobs))
	err := actor.NewTally(k.file, jobs)
	if err == nil {
		k.tally, err = actor.OpenTally(k.file)
	}
	if err != nil {
		k.tb.Fatalf("%v", err)
	}
}

func (k *soak) produces(from, count, rate int) *process {
	k.tb.Helper()
	p := k.start(actor.Order{
		Role: actor.Producer, From: from, Count: count, Rate: rate, Lines: soakLines, Again: true, Tally: k.file,
	}, "producer")
	k.producers = append(k.producers, p)
	return p
}

func (k *soak) works() *process {
	k.tb.Helper()
	return k.work(actor.Order{Concurrency: soakConcurrency, Remove: true, Tally: k.file})
}

// fullSpeed measures how many jobs a second two producers and two workers get done.
func (k *soak) fullSpeed() int {
	k.tb.Helper()
	const most = 5_000_000
	k.newTally(2 * most)
	all := []*process{k.produces(0, most, 0), k.produces(most, most, 0), k.works(), k.works()}
	k.await("the first jobs", func() bool { _, ends := k.tally.Of(0); return ends > 0 })
	before := k.ended()
	k.pass(soakTrial)
	speed := int(float64(k.ended()-before) / soakTrial.Seconds())
	for _, p := range all {
		p.kill()
	}
	k.do("FLUSHALL")
	k.tell("full speed, of two producers and two workers: %d jobs/s", speed)
	return speed
}

// ended counts the jobs that have been run.
func (k *soak) ended() int {
	return k.jobs(func(_, ends int) bool { return ends > 0 })
}

// saved counts the jobs whose saves were acknowledged.
func (k *soak) saved() int {
	return k.jobs(func(saves, _ int) bool { return saves > 0 })
}

func (k *soak) jobs(are func(saves, ends int) bool) int {
	n := 0
	for i := range k.tally.Len() {
		if are(k.tally.Of(i)) {
			n++
		}
	}
	return n
}

// kinds are the faults. None lasts longer than half of the time to the next.
func (k *soak) kinds() []fault {
	return []fault{
		{"worker killed", func() {
			k.worker.kill()
			k.worker = k.works()
		}},
		{"worker frozen", func() {
			k.worker.signal(syscall.SIGSTOP)
			k.pass(7 * stall / 2)
			k.worker.signal(syscall.SIGCONT)
		}},
		{"worker restarted", func() {
			k.worker.signal(syscall.SIGTERM)
			k.await("a worker's end", k.worker.exited)
			k.worker = k.works()
		}},
		{"producer killed", func() {
			k.producer.kill()
			next := k.producer.order.From
			for i := next; i < k.tally.Len(); i++ {
				if saves, _ := k.tally.Of(i); saves > 0 {
					next = i + 1
				}
			}
			next += soakLines // which were under way
			k.producer = k.produces(next, min(k.others(), k.tally.Len()-next), k.rate-k.mine)
		}},
		{"redis-server killed", func() {
			k.server.Kill()
			k.pass(time.Second)
			k.server.Restart(k.tb)
		}},
		{"connections cut", k.proxy.CutAll},
		{"network away", func() {
			k.proxy.Block()
			k.pass(3 * time.Second)
			k.proxy.Unblock(k.tb)
		}},
		{"network silent", func() {
			k.gate.Hold()
			k.pass(4 * time.Second)
			k.gate.Release()
		}},
		{"replies lost", func() {
			k.proxy.DropReplies(10, isScript)
			k.pass(2 * time.Second)
			k.proxy.DropReplies(0, nil)
		}},
		{"scripts forgotten", func() {
			for range 10 {
				k.must("SCRIPT", "FLUSH")
				k.pass(200 * time.Millisecond)
			}
		}},
		{"out of memory", func() {
			k.must("CONFIG", "SET", "maxmemory", "1")
			k.pass(2 * time.Second)
			k.must("CONFIG", "SET", "maxmemory", "0")
		}},
		{"read only", func() {
			k.server.Do(k.tb, "REPLICAOF", "127.0.0.1", strconv.Itoa(1)) // where nobody is
			k.pass(2 * time.Second)
			k.server.Do(k.tb, "REPLICAOF", "NO", "ONE")
		}},
	}
}

type fault struct {
	name string
	run  func()
}
