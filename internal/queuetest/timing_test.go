package queuetest

import (
	"testing"
	"time"
)

// judge is a testing.TB that takes note of a failure.
type judge struct {
	testing.TB

	failed bool
}

func (j *judge) Errorf(string, ...any) { j.failed = true }

func TestWithin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		took   []time.Duration
		tries  int
		failed bool
	}{
		"at once":          {took: []time.Duration{1}, tries: 1},
		"the bound itself": {took: []time.Duration{2}, tries: 1},
		"the last time":    {took: []time.Duration{9, 8, 7, 6, 2}, tries: 5},
		"never":            {took: []time.Duration{9, 8, 7, 6, 5}, tries: 5, failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			j, n := &judge{TB: t}, 0
			Within(j, name, 2, func() time.Duration {
				n++
				return test.took[n-1]
			})
			if j.failed != test.failed || n != test.tries {
				t.Errorf("failed %t after %d tries", j.failed, n)
			}
		})
	}
}

func TestCalm(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		counts []int
		failed bool
	}{
		"rests":             {counts: []int{5, 7}},
		"comes to rest":     {counts: []int{0, 50, 90, 92}},
		"rests at the last": {counts: []int{0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29}},
		"never rests":       {counts: []int{0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30}, failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			j, n := &judge{TB: t}, 0
			Calm(j, name, time.Nanosecond, 2, func() int {
				n++
				return test.counts[n-1]
			})
			if j.failed != test.failed || n != len(test.counts) {
				t.Errorf("failed %t after %d counts", j.failed, n)
			}
		})
	}
}
