package store

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"
)

// A Pause is the wait between tries of a call while Redis does not answer. It doubles
// from 20 ms to a second, or to Longest. Its jitter keeps a fleet of workers from coming
// back all at once.
type Pause struct {
	Longest time.Duration // zero is longestPause
	last    time.Duration
}

const (
	firstPause   = 20 * time.Millisecond
	longestPause = time.Second
)

// Next returns how long to wait before the next try.
func (p *Pause) Next() time.Duration {
	p.last = min(max(firstPause, 2*p.last), cmp.Or(p.Longest, longestPause))
	return p.last/2 + rand.N(p.last/2) //nolint:gosec // spreads retries, guards nothing
}

// Sleep waits for d. It reports false if ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
