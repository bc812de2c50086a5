package beequeue

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// A Strategy names how long a failed job waits before it is tried again.
// Bee-Queue's three are built in; Config.Backoffs adds others.
type Strategy string

// The strategies of Bee-Queue.
const (
	Immediate   Strategy = "immediate"   // no wait
	Fixed       Strategy = "fixed"       // the same delay before each retry
	Exponential Strategy = "exponential" // the delay doubles with each retry
)

// A BackoffFunc gives the wait before the next try of a failed job, for a
// strategy of your own. It may change job.Options.Backoff.Delay, which is
// stored with the job, as Bee-Queue's strategies may. A wait of zero or less
// retries at once.
type BackoffFunc func(job *Job) time.Duration

// maxBackoff bounds what Exponential doubles to; without it, a job that is
// retried sixty times would overflow.
const maxBackoff = 365 * 24 * time.Hour

// knowsBackoff reports whether jobs of the queue may name a strategy.
func (q *Queue) knowsBackoff(s Strategy) bool {
	switch s {
	case Immediate, Fixed, Exponential:
		return true
	}
	return q.config.Backoffs[s] != nil
}

// next gives the wait before the job's next try, and prepares the backoff that
// is stored with the job for the try after it. As in Bee-Queue, Exponential
// uses the stored delay as it stands and then doubles it in the record.
func (j *Job) nextBackoff(own map[Strategy]BackoffFunc) (time.Duration, error) {
	b := &j.Options.Backoff
	switch b.Strategy {
	case "", Immediate:
		return 0, nil
	case Fixed:
		return b.Delay, nil
	case Exponential:
		delay := b.Delay
		b.Delay = min(2*min(delay, maxBackoff), maxBackoff)
		return delay, nil
	}
	if f := own[b.Strategy]; f != nil {
		return f.call(j)
	}
	return 0, fmt.Errorf("%w %q", ErrUnknownBackoff, b.Strategy)
}

// call runs the func, which is the user's and may panic.
func (f BackoffFunc) call(j *Job) (wait time.Duration, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: string(debug.Stack())}
		}
	}()
	return max(0, f(j)), nil
}

// pause is the wait between tries of a call while Redis does not answer: it
// doubles from 20 ms to a second, with jitter so that a fleet of workers does
// not come back all at once.
type pause struct{ last, longest time.Duration } // 0 is longestPause

const (
	firstPause   = 20 * time.Millisecond
	longestPause = time.Second
)

func (p *pause) next() time.Duration {
	p.last = min(max(firstPause, 2*p.last), cmp.Or(p.longest, longestPause))
	return p.last/2 + rand.N(p.last/2) //nolint:gosec // spreads retries, guards nothing
}
