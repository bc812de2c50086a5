package queuetest

// Some checks depend on the speed of the machine: how long something takes, or how often
// it happens in a second. A machine that is slow, or busy at that moment, fails them
// although the library is right. So these checks are repeated before they fail.

import (
	"slices"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue/internal/pulse"
)

const tries = 5 // of a measurement of time

// Within measures how long something takes, until it takes no longer than most. After
// five measurements it fails the test.
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

// Calm waits until a count grows by no more than most in a whole window of time. After
// ten windows it fails the test. Something that never rests has no such window.
func Calm[N pulse.Number](tb testing.TB, what string, window time.Duration, most N, count func() N) {
	tb.Helper()
	grown := pulse.Calmest(most, count, func() {
		timer := time.NewTimer(window)
		defer timer.Stop()
		<-timer.C
	})
	tb.Logf("%s: %v in %v, at most %v", what, grown, window, most)
	if slices.Min(grown) > most {
		tb.Errorf("%s: %v in each %v, at most %v", what, grown, window, most)
	}
}
