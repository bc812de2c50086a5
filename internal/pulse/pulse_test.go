package pulse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Beats come in time, and one that does not is told.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var delays []time.Duration
		blocked := true
		stop := Start(0, func(delay time.Duration) {
			delays = append(delays, delay)
			if blocked {
				blocked = false
				timer := time.NewTimer(time.Second) // the next beat begins after it
				<-timer.C
			}
		})
		timer := time.NewTimer(beat + time.Second + 2*beat)
		<-timer.C
		synctest.Wait()
		stop()
		stop()
		if len(delays) != 3 {
			t.Errorf("%d beats: %v", len(delays), delays)
		}
		for _, delay := range delays {
			if delay != 0 {
				t.Errorf("a beat was late by %v", delay)
			}
		}
	})
}

// A process that is busy is told of, from the least delay on.
func TestLate(t *testing.T) {
	t.Parallel()
	delays := make(chan time.Duration, 1000)
	stop := Start(time.Nanosecond, func(delay time.Duration) {
		select {
		case delays <- delay:
		default:
		}
	})
	defer stop()
	if delay := <-delays; delay <= 0 { // a timer is never early, and hardly ever in time
		t.Errorf("late by %v", delay)
	}
}

func TestExcuses(t *testing.T) {
	t.Parallel()
	began := time.Now()
	late := fmt.Errorf("call: %w", context.DeadlineExceeded)
	for delay, excused := range map[time.Duration]bool{0: false, 499 * time.Millisecond: false, 500 * time.Millisecond: true} {
		var r Record
		r.Add(delay)
		if r.Excuses(late, began) != excused {
			t.Errorf("after %v it is not %t that a late reply is excused", delay, excused)
		}
		if r.Excuses(errors.New("another"), began) || r.Excuses(late, time.Now().Add(time.Hour)) || r.Excuses(nil, began) {
			t.Errorf("after %v something else is excused", delay)
		}
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	var r Record
	if worst := r.Worst(time.Time{}); worst != 0 {
		t.Errorf("no beat was late by %v", worst)
	}
	r.Add(3)
	r.Add(2)
	between := time.Now()
	r.Add(1)
	for since, want := range map[time.Time]time.Duration{{}: 3, between: 1, time.Now().Add(time.Second): 0} {
		if worst := r.Worst(since); worst != want {
			t.Errorf("since %v: %v, want %v", since, worst, want)
		}
	}
}

func TestCalmest(t *testing.T) {
	t.Parallel()
	counts, passed := []time.Duration{1, 5, 6}, 0
	grown := Calmest(2, func() time.Duration { return counts[passed] }, func() { passed++ })
	if !slices.Equal(grown, []time.Duration{4, 1}) || passed != 2 {
		t.Errorf("grown by %v in %d windows", grown, passed)
	}
}
