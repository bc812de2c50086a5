package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// run runs the order's task. The func it gives, if any, ends the workers.
func run(ctx context.Context, peers []Peer, o Order, r *Report) (func(), error) {
	switch o.Task {
	case "save":
		return nil, saveThrough(ctx, peers, o, o.Concurrency)
	case "bulk":
		return nil, bulkSave(ctx, peers, o)
	case "drain":
		return drain(ctx, peers, o)
	case "mixed":
		return mixed(ctx, peers, o)
	case "latency":
		return latency(ctx, peers[0], o, r)
	case "work", "idle": // workers that go on until the end
		return workAll(ctx, peers, o, func(int) {})
	}
	return nil, fmt.Errorf("no task %q", o.Task)
}

// SaveAll saves n jobs one by one with so many calls in flight.
func SaveAll(ctx context.Context, p Peer, payload []byte, n, inFlight int) error {
	return saveThrough(ctx, []Peer{p}, Order{Jobs: n, Payload: len(payload)}, inFlight)
}

func saveThrough(ctx context.Context, peers []Peer, o Order, inFlight int) error {
	payload := Payload(o.Payload)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var savers sync.WaitGroup
	for range min(inFlight, o.Jobs) {
		savers.Go(func() {
			for i := next.Add(1); i <= int64(o.Jobs); i = next.Add(1) {
				if err := peers[int(i)%len(peers)].Save(ctx, payload); err != nil {
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

// BulkSize is how many jobs one call of a bulk save takes.
const BulkSize = 1000

func bulkSave(ctx context.Context, peers []Peer, o Order) error {
	payload := Payload(o.Payload)
	share := o.Jobs / len(peers)
	for _, p := range peers {
		for left := share; left > 0; left -= BulkSize {
			if err := p.Bulk(ctx, payload, min(left, BulkSize)); err != nil {
				return err
			}
		}
	}
	return nil
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

func workAll(ctx context.Context, peers []Peer, o Order, done func(int)) (func(), error) {
	var stops []func()
	stop := func() {
		for _, s := range stops {
			s()
		}
	}
	for _, p := range peers {
		s, err := p.Work(ctx, o.Concurrency, func() {}, done)
		if err != nil {
			stop()
			return nil, err
		}
		stops = append(stops, s)
	}
	return stop, nil
}

// drain works jobs that are waiting already.
func drain(ctx context.Context, peers []Peer, o Order) (func(), error) {
	c := newCounter(o.Jobs)
	stop, err := workAll(ctx, peers, o, c.done)
	if err != nil {
		return nil, err
	}
	return stop, c.wait()
}

// mixed saves jobs, all at once as Bee-Queue's own benchmark does, and works them
// meanwhile.
func mixed(ctx context.Context, peers []Peer, o Order) (func(), error) {
	c := newCounter(o.Jobs)
	stop, err := workAll(ctx, peers, o, c.done)
	if err != nil {
		return nil, err
	}
	if err := saveThrough(ctx, peers, o, o.Jobs); err != nil {
		return stop, err
	}
	return stop, c.wait()
}

// latency gives an idle worker one job at a time.
func latency(ctx context.Context, p Peer, o Order, r *Report) (func(), error) {
	payload := Payload(o.Payload)
	started := make(chan time.Time, 1)
	done := make(chan struct{}, 1)
	stop, err := p.Work(ctx, o.Concurrency,
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
		err := p.Request(ctx, payload)
		if err == nil {
			r.Result = append(r.Result, micros(time.Since(from)))
		} else if !errors.Is(err, ErrNoResult) {
			return stop, err
		}
		r.Start = append(r.Start, micros((<-started).Sub(from)))
		<-done
	}
	return stop, nil
}
