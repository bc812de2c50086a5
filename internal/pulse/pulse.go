// Package pulse notices when a process could not run: because it was stopped, or
// because the machine had no processor for it. What took too long meanwhile says
// nothing of the program.
package pulse

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// beat is the time between two beats. The operating system may be late by some
// milliseconds on any machine.
const beat = 50 * time.Millisecond

// Start calls late each time that a beat comes later than by least, with the delay. The
// calls come one after the other. The func that it returns ends that, and waits for it.
func Start(least time.Duration, late func(delay time.Duration)) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		timer := time.NewTimer(beat)
		defer timer.Stop()
		for {
			last := time.Now()
			select {
			case <-timer.C:
			case <-quit:
				return
			}
			if delay := time.Since(last) - beat; delay >= least {
				late(delay)
			}
			timer.Reset(beat)
		}
	}()
	return sync.OnceFunc(func() {
		close(quit)
		<-ended
	})
}

// A Record keeps the late beats of a process.
type Record struct {
	mu    sync.Mutex
	beats []lateBeat
}

type lateBeat struct {
	at    time.Time
	delay time.Duration
}

// Add takes note of a late beat of just now; it suits [Start].
func (r *Record) Add(delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beats = append(r.beats, lateBeat{time.Now(), delay})
}

// Excuses reports whether an error is of a call that was not answered in time while the
// process could not run for half a second or longer. Such an error is the machine's, and
// not the library's.
func (r *Record) Excuses(err error, since time.Time) bool {
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	return late && r.Worst(since) >= 500*time.Millisecond
}

// Worst is the longest delay since a moment; 0 if there was none.
func (r *Record) Worst(since time.Time) (worst time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.beats {
		if b.at.After(since) {
			worst = max(worst, b.delay)
		}
	}
	return worst
}
