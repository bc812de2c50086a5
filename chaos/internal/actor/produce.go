package actor

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// produce saves the jobs, and then is done; or ctx ends. If the order is open, it is
// done when the jobs are saved and ctx has ended, and breaks no save off.
func (a *actor) produce(ctx context.Context) error {
	if a.Batch > 0 {
		return a.produceBatches(ctx)
	}
	told := ctx
	if a.Open {
		ctx = context.WithoutCancel(ctx)
	}
	var next atomic.Int64
	next.Store(int64(a.From))
	began := time.Now()
	var lines sync.WaitGroup
	for range max(1, a.Lines) {
		lines.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= a.From+a.Count && (!a.Open || told.Err() != nil) {
					return
				}
				if a.Rate > 0 && !sleep(ctx, time.Until(began.Add(time.Duration(i-a.From)*time.Second/time.Duration(a.Rate)))) {
					return
				}
				a.save(ctx, i)
			}
		})
	}
	lines.Wait()
	return ctx.Err()
}

// payload is the data of job n.
func (a *actor) payload(n int) []byte {
	job := a.Job
	for _, special := range a.Special {
		if special.N == n {
			job = special
		}
	}
	job.N = n
	payload, err := json.Marshal(job)
	if err != nil {
		panic(err)
	}
	return payload
}

func (a *actor) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.Within == 0 {
		return context.WithTimeout(ctx, 10*time.Second)
	}
	return context.WithTimeout(ctx, time.Duration(a.Within)*time.Millisecond)
}

func (a *actor) save(ctx context.Context, n int) {
	save := a.queue.Job(a.payload(n))
	for ctx.Err() == nil {
		a.note(Save, n, "", "")
		within, cancel := a.within(ctx)
		id, err := save(within)
		cancel()
		a.saved(n, id, err)
		if err == nil || !a.Again {
			return
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

func (a *actor) saved(n int, id string, err error) {
	switch {
	case err == nil:
		a.note(Saved, n, id, "")
	case a.queue.Stored(err):
		a.note(Unsure, n, id, err.Error())
	default:
		a.note(Refused, n, id, err.Error())
	}
}

// note writes to the ledger, or counts.
func (a *actor) note(what string, n int, id, text string) {
	if a.tally == nil {
		a.ledger.note(what, n, id, text)
		return
	}
	switch what {
	case Saved:
		a.tally.Saved(n)
	case End:
		a.tally.Ended(n)
	case Refused, Error:
		a.ledger.note(what, n, id, text)
	}
}

func (a *actor) produceBatches(ctx context.Context) error {
	for from := a.From; from < a.From+a.Count && ctx.Err() == nil; from += a.Batch {
		size := min(a.Batch, a.From+a.Count-from)
		payloads := make([][]byte, size)
		for i := range payloads {
			payloads[i] = a.payload(from + i)
			a.note(Save, from+i, "", "")
		}
		within, cancel := a.within(ctx)
		errs := a.queue.SaveAll(within, payloads)
		cancel()
		if len(errs) != size {
			return fmt.Errorf("%d answers to %d saves", len(errs), size)
		}
		for i, err := range errs {
			a.saved(from+i, "", err)
		}
	}
	return ctx.Err()
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
