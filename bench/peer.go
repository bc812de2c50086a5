package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A measurement runs in a process of its own, so that CPU and memory are the
// peer's alone: this program again for the peers in Go, node/peer.js for those in
// Node. It reads one order from standard input, gets ready, and goes through the
// words below; both sides write one line of JSON or one word at a time.
//
//	order ->           the order, as JSON
//	      <- {"ready": true}       connected and warmed up
//	go    ->
//	      <- the report, as JSON
//	end   ->           close and exit

// order says what to measure.
type order struct {
	Peer        string `json:"peer"`
	Task        string `json:"task"` // save, bulk, drain, mixed, latency, work, idle
	URL         string `json:"url"`  // redis://host:port or postgres://...; more cluster nodes as ?addr=
	Queue       string `json:"queue"`
	Queues      int    `json:"queues"` // how many, named queue0, queue1...; 0 for one named queue
	Jobs        int    `json:"jobs"`
	Concurrency int    `json:"concurrency"` // handlers at once; saves in flight for the task save
	Payload     int    `json:"payload"`     // bytes of JSON
	Warm        int    `json:"warm"`        // jobs to warm up with, on a queue of their own
}

// report is what came of it.
type report struct {
	Ready   bool      `json:"ready,omitempty"`
	Error   string    `json:"error,omitempty"`
	Jobs    int       `json:"jobs"`
	Seconds float64   `json:"seconds"`
	CPU     float64   `json:"cpu"`             // seconds of the process, user and system
	Allocs  float64   `json:"allocs"`          // heap objects; 0 where unknown
	Start   []float64 `json:"start,omitempty"` // us from save to handler
	Result  []float64 `json:"result,omitempty"`
}

// A peer is a job queue under test, for one queue name.
type peer interface {
	// save stores one job and returns when it is stored.
	save(ctx context.Context, payload []byte) error
	// bulk stores n jobs in the peer's own way of doing so.
	bulk(ctx context.Context, payload []byte, n int) error
	// work starts a worker. handle is called for each job; done when the outcome
	// of n more jobs is stored. stop ends the worker and waits for it.
	work(ctx context.Context, concurrency int, handle func(), done func(n int)) (stop func(), err error)
	// request saves a job and waits for its result; errNoResult where the peer
	// has no such thing, which then only saves.
	request(ctx context.Context, payload []byte) error
	// close ends what the peer opened.
	close()
}

var errNoResult = errors.New("this queue has no way to wait for a result")

// opener connects a peer to a queue.
type opener func(ctx context.Context, o order, queue string) (peer, error)

// peersInGo are the peers of this program, by name.
var peersInGo = map[string]opener{}

// servePeer is the measured process.
func servePeer() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	open := peersInGo[o.Peer]
	if open == nil {
		return fmt.Errorf("no peer %q in Go", o.Peer)
	}
	ctx := context.Background()
	if err := warmUp(ctx, open, o); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	queues := []string{o.Queue}
	if o.Queues > 0 {
		queues = nil
		for i := range o.Queues {
			queues = append(queues, fmt.Sprintf("%s%d", o.Queue, i))
		}
	}
	var peers []peer
	for _, name := range queues {
		p, err := open(ctx, o, name)
		if err != nil {
			return fmt.Errorf("open queue %q: %w", name, err)
		}
		defer p.close()
		peers = append(peers, p)
	}
	say(report{Ready: true})
	await := func(word string) error {
		got, err := in.ReadString('\n')
		if strings.TrimSpace(got) != word {
			return fmt.Errorf("want %q, got %q: %w", word, got, err)
		}
		return nil
	}
	if err := await("go"); err != nil {
		return err
	}
	r, finish, err := measure(ctx, peers, o)
	if err != nil {
		return err
	}
	say(r)
	err = await("end")
	finish()
	return err
}

func say(r report) {
	line, _ := json.Marshal(r) //nolint:errchkjson // numbers and text
	_, _ = os.Stdout.Write(append(line, '\n'))
}

// warmUp runs some jobs through a queue of their own: connections, scripts and
// compilers have then had their first time.
func warmUp(ctx context.Context, open opener, o order) error {
	if o.Warm == 0 {
		return nil
	}
	p, err := open(ctx, o, "warm-up")
	if err != nil {
		return err
	}
	defer p.close()
	o.Jobs = o.Warm
	switch o.Task {
	case "save", "bulk":
		_, _, err = measure(ctx, []peer{p}, o)
		return err
	case "latency":
		_, finish, err := measure(ctx, []peer{p}, o)
		if err == nil {
			finish()
		}
		return err
	}
	if err := p.bulk(ctx, payloadOf(o.Payload), o.Warm); err != nil {
		return err
	}
	o.Task = "drain"
	_, finish, err := measure(ctx, []peer{p}, o)
	if err == nil {
		finish()
	}
	return err
}

// payloadOf is a JSON object of n bytes.
func payloadOf(n int) []byte {
	const frame = `{"p":""}`
	return []byte(`{"p":"` + strings.Repeat("x", max(0, n-len(frame))) + `"}`)
}

// measure runs the task over the queues, and gives what ends its workers.
func measure(ctx context.Context, peers []peer, o order) (report, func(), error) {
	tasks := map[string]func(context.Context, []peer, order, *report) (func(), error){
		"save": taskSave, "bulk": taskBulk, "drain": taskDrain, "mixed": taskMixed,
		"latency": taskLatency, "work": taskWork, "idle": taskWork,
	}
	run := tasks[o.Task]
	if run == nil {
		return report{}, nil, fmt.Errorf("no task %q", o.Task)
	}
	r := report{Jobs: o.Jobs}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start := processCPU(), time.Now()
	finish, err := run(ctx, peers, o, &r)
	r.Seconds = time.Since(start).Seconds()
	r.CPU = processCPU() - cpu
	runtime.ReadMemStats(&after)
	r.Allocs = float64(after.Mallocs - before.Mallocs)
	if finish == nil {
		finish = func() {}
	}
	return r, finish, err
}

func processCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(u.Utime) + seconds(u.Stime)
}

func taskSave(ctx context.Context, peers []peer, o order, _ *report) (func(), error) {
	return nil, saveAll(ctx, peers, o, o.Concurrency)
}

// saveAll saves the jobs one by one with so many calls in flight.
func saveAll(ctx context.Context, peers []peer, o order, inFlight int) error {
	payload := payloadOf(o.Payload)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var savers sync.WaitGroup
	for range min(inFlight, o.Jobs) {
		savers.Go(func() {
			for i := next.Add(1); i <= int64(o.Jobs); i = next.Add(1) {
				if err := peers[int(i)%len(peers)].save(ctx, payload); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	savers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// bulkSize is how many jobs one call of a bulk save takes.
const bulkSize = 1000

func taskBulk(ctx context.Context, peers []peer, o order, _ *report) (func(), error) {
	payload := payloadOf(o.Payload)
	share := o.Jobs / len(peers)
	for _, p := range peers {
		for left := share; left > 0; left -= bulkSize {
			if err := p.bulk(ctx, payload, min(left, bulkSize)); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// counter waits for a number of jobs.
type counter struct {
	left atomic.Int64
	zero chan struct{}
}

func newCounter(n int) *counter {
	c := &counter{zero: make(chan struct{})}
	c.left.Store(int64(n))
	return c
}

func (c *counter) done(n int) {
	if left := c.left.Add(-int64(n)); left <= 0 && left+int64(n) > 0 {
		close(c.zero)
	}
}

// patience is how long the slowest task may take.
const patience = 5 * time.Minute

func (c *counter) wait() error {
	select {
	case <-c.zero:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%d jobs were not done in %v", c.left.Load(), patience)
	}
}

func workAll(ctx context.Context, peers []peer, o order, done func(int)) (func(), error) {
	var stops []func()
	stop := func() {
		for _, s := range stops {
			s()
		}
	}
	for _, p := range peers {
		s, err := p.work(ctx, o.Concurrency, func() {}, done)
		if err != nil {
			stop()
			return nil, err
		}
		stops = append(stops, s)
	}
	return stop, nil
}

// taskDrain works jobs that are waiting already.
func taskDrain(ctx context.Context, peers []peer, o order, _ *report) (func(), error) {
	c := newCounter(o.Jobs)
	stop, err := workAll(ctx, peers, o, c.done)
	if err != nil {
		return nil, err
	}
	return stop, c.wait()
}

// taskMixed saves jobs, all at once as Bee-Queue's own benchmark does, and works
// them meanwhile.
func taskMixed(ctx context.Context, peers []peer, o order, _ *report) (func(), error) {
	c := newCounter(o.Jobs)
	stop, err := workAll(ctx, peers, o, c.done)
	if err != nil {
		return nil, err
	}
	if err := saveAll(ctx, peers, o, o.Jobs); err != nil {
		return stop, err
	}
	return stop, c.wait()
}

// taskWork starts workers that go on until the end.
func taskWork(ctx context.Context, peers []peer, o order, _ *report) (func(), error) {
	return workAll(ctx, peers, o, func(int) {})
}

// taskLatency gives an idle worker one job at a time.
func taskLatency(ctx context.Context, peers []peer, o order, r *report) (func(), error) {
	payload := payloadOf(o.Payload)
	started := make(chan time.Time, 1)
	done := make(chan struct{}, 1)
	p := peers[0]
	stop, err := p.work(ctx, o.Concurrency,
		func() { started <- time.Now() },
		func(int) { done <- struct{}{} })
	if err != nil {
		return nil, err
	}
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	for i := range o.Jobs {
		// A pause, so that the worker is idle again; of changing length, so that it
		// does not fall in step with anybody's timer.
		time.Sleep(2*time.Millisecond + time.Duration(i%7)*500*time.Microsecond)
		from := time.Now()
		err := p.request(ctx, payload)
		if err == nil {
			r.Result = append(r.Result, micros(time.Since(from)))
		} else if !errors.Is(err, errNoResult) {
			return stop, err
		}
		r.Start = append(r.Start, micros((<-started).Sub(from)))
		<-done
	}
	return stop, nil
}
