// Package peer is what the measured processes have in common: the words they
// exchange with the benchmark, and the tasks. Each peer is a small program of its
// own that links its own library and no other, so that CPU and memory are its
// alone. node/peer.js is the same for the peers in Node.
package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// The words are lines: one of JSON, or one word. Whatever goes wrong is a report
// with an error.
//
//	order ->           the order, as JSON
//	      <- {"ready": true}       connected and warmed up
//	go    ->
//	      <- the report, as JSON
//	end   ->           close and exit

// Order says what to measure.
type Order struct {
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

// queues are the names of the queues.
func (o Order) queues() []string {
	if o.Queues == 0 {
		return []string{o.Queue}
	}
	var names []string
	for i := range o.Queues {
		names = append(names, fmt.Sprintf("%s%d", o.Queue, i))
	}
	return names
}

// Report is what came of it.
type Report struct {
	Ready   bool      `json:"ready,omitempty"`
	Error   string    `json:"error,omitempty"`
	Jobs    int       `json:"jobs"`
	Seconds float64   `json:"seconds"`
	CPU     float64   `json:"cpu"`             // seconds of the process, user and system
	Allocs  float64   `json:"allocs"`          // heap objects; 0 where unknown
	Start   []float64 `json:"start,omitempty"` // us from save to handler
	Result  []float64 `json:"result,omitempty"`
}

// A Peer is a job queue under test, for one queue name.
type Peer interface {
	// Save stores one job and returns when it is stored.
	Save(ctx context.Context, payload []byte) error
	// Bulk stores n jobs in the peer's own way of doing so.
	Bulk(ctx context.Context, payload []byte, n int) error
	// Work starts a worker. handle is called for each job; done when the outcome
	// of n more jobs is stored. stop ends the worker and waits for it.
	Work(ctx context.Context, concurrency int, handle func(), done func(n int)) (stop func(), err error)
	// Request saves a job and waits for its result; ErrNoResult where the peer
	// has no such thing, which then only saves.
	Request(ctx context.Context, payload []byte) error
	// Close ends what the peer opened.
	Close()
}

// ErrNoResult is Request's answer where there is no way to wait for a result.
var ErrNoResult = errors.New("this queue has no way to wait for a result")

// Open connects a peer to a queue.
type Open func(ctx context.Context, url, queue string) (Peer, error)

// Main is the whole of a measured process.
func Main(open Open) {
	if err := serve(context.Background(), open); err != nil {
		say(Report{Error: err.Error()})
		os.Exit(1)
	}
}

func serve(ctx context.Context, open Open) error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	var o Order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	await := func(word string) error {
		got, err := in.ReadString('\n')
		if strings.TrimSpace(got) != word {
			return fmt.Errorf("want %q, got %q: %w", word, got, err)
		}
		return nil
	}
	if err := warmUp(ctx, open, o); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	var peers []Peer
	for _, name := range o.queues() {
		p, err := open(ctx, o.URL, name)
		if err != nil {
			return fmt.Errorf("open queue %q: %w", name, err)
		}
		defer p.Close()
		peers = append(peers, p)
	}
	say(Report{Ready: true})
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

func say(r Report) {
	line, _ := json.Marshal(r) //nolint:errchkjson // numbers and text
	_, _ = os.Stdout.Write(append(line, '\n'))
}

// warmUp runs some jobs through a queue of their own: connections, scripts and
// the heap have then had their first time. All that it opens is closed again.
func warmUp(ctx context.Context, open Open, o Order) error {
	switch {
	case o.Warm == 0:
		return nil
	case o.Task == "latency": // which is slow, and does little a second
		if err := rehearse(ctx, open, o, "mixed", o.Warm); err != nil {
			return err
		}
		return rehearse(ctx, open, o, "latency", min(20, o.Jobs/10))
	case o.Task == "work", o.Task == "idle":
		return rehearse(ctx, open, o, "drain", o.Warm)
	}
	return rehearse(ctx, open, o, o.Task, o.Warm)
}

// rehearse runs a task from beginning to end.
func rehearse(ctx context.Context, open Open, o Order, task string, jobs int) error {
	p, err := open(ctx, o.URL, "warm-up")
	if err != nil {
		return err
	}
	defer p.Close()
	o.Task, o.Jobs = task, jobs
	if task == "drain" {
		if err := p.Bulk(ctx, Payload(o.Payload), jobs); err != nil {
			return err
		}
	}
	_, finish, err := measure(ctx, []Peer{p}, o)
	finish()
	return err
}

// measure runs the task over the queues, and gives what ends its workers.
func measure(ctx context.Context, peers []Peer, o Order) (Report, func(), error) {
	r := Report{Jobs: o.Jobs}
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
