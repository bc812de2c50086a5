// Package queuetest has what the tests of queues share.
//
// Some checks depend on the speed of the machine: how long something takes, or
// how much of it happens in a second. A machine that is slow, or busy with
// something else at that moment, fails them although the library is right. The
// functions of this package repeat such a check before they say no.
package queuetest

import (
	"slices"
	"testing"
	"time"
)

const (
	tries   = 5  // of a time
	windows = 10 // of a count
)

// number is what can be counted.
type number interface{ ~int | ~int64 | ~float64 }

// Within measures how long something takes, until it takes no longer than most.
// After five measurements it fails the test.
func Within(tb testing.TB, what string, most time.Duration, measure func() time.Duration) {
	tb.Helper()
	var took []time.Duration
	for range tries {
		took = append(took, measure())
		if took[len(took)-1] <= most {
			tb.Logf("%s: %v, at most %v", what, took, most)
			return
		}
	}
	tb.Errorf("%s takes %v, at most %v", what, took, most)
}

// Calm waits until a count grows by no more than most in a whole window of time.
// After ten windows it fails the test. Something that never rests has no such
// window.
func Calm[N number](tb testing.TB, what string, window time.Duration, most N, count func() N) {
	tb.Helper()
	grown := Calmest(most, count, func() {
		timer := time.NewTimer(window)
		defer timer.Stop()
		<-timer.C
	})
	tb.Logf("%s: %v in %v, at most %v", what, grown, window, most)
	if slices.Min(grown) > most {
		tb.Errorf("%s: %v in each %v, at most %v", what, grown, window, most)
	}
}

// Calmest gives how much a count grew in one window of time after the other. It
// ends with the first in which that was no more than most, or after ten windows.
// The func pass lets a window pass.
func Calmest[N number](most N, count func() N, pass func()) (grown []N) {
	last := count()
	for range windows {
		pass()
		now := count()
		grown = append(grown, now-last)
		if now-last <= most {
			break
		}
		last = now
	}
	return grown
}
