package beequeue

import (
	"fmt"
	"runtime/debug"
	"time"
)

// A Strategy names the rule for how long a failed job waits before its next try.
// Bee-Queue's three are built in, and Config.Backoffs adds others.
type Strategy string

// The strategies of Bee-Queue.
const (
	Immediate   Strategy = "immediate"   // no wait
	Fixed       Strategy = "fixed"       // the same delay before each retry
	Exponential Strategy = "exponential" // the delay doubles with each retry
)

// isBuiltIn reports whether a strategy is one of Bee-Queue's.
func isBuiltIn(s Strategy) bool { return s == Immediate || s == Fixed || s == Exponential }

// A BackoffFunc is a strategy of your own. It returns the wait before the next try of a
// failed job; zero or less retries at once. Like Bee-Queue's strategies it may change
// job.Options.Backoff.Delay, which is stored with the job.
type BackoffFunc func(job *Job) time.Duration

// maxBackoff is the longest delay that Exponential doubles to. Without it, the delay of a
// job that is retried sixty times would overflow.
const maxBackoff = 365 * 24 * time.Hour

// nextBackoff returns the wait before the job's next try. It also prepares the stored
// backoff for the try after that: as in Bee-Queue, Exponential waits for the stored delay
// and then doubles it in the record. The error wraps ErrUnknownBackoff.
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

// call runs the user's func. A panic becomes a *PanicError.
func (f BackoffFunc) call(j *Job) (wait time.Duration, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: string(debug.Stack())}
		}
	}()
	return max(0, f(j)), nil
}
