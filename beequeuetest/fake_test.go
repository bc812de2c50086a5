package beequeuetest_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

// failure runs f as a test of its own that has to fail, and returns what it said.
func failure(t *testing.T, f func(*fakeTB)) string {
	t.Helper()
	tb := &fakeTB{TB: t}
	run := func(f func()) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f()
		}()
		<-ended
	}
	run(func() { f(tb) })
	for _, f := range slices.Backward(tb.cleanups) {
		run(f)
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	assert.True(t, tb.failed, "want a failure")
	return tb.said.String()
}

// fakeTB is a test that may fail. What it does not have is the real test's.
type fakeTB struct {
	testing.TB

	mu       sync.Mutex
	said     strings.Builder
	failed   bool
	cleanups []func()
}

func (tb *fakeTB) Logf(format string, args ...any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	fmt.Fprintf(&tb.said, format+"\n", args...)
}

func (tb *fakeTB) Errorf(format string, args ...any) {
	tb.Logf(format, args...)
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.failed = true
}

func (tb *fakeTB) FailNow() {
	tb.mu.Lock()
	tb.failed = true
	tb.mu.Unlock()
	runtime.Goexit()
}

func (tb *fakeTB) Fatalf(format string, args ...any) {
	tb.Errorf(format, args...)
	runtime.Goexit()
}

func (tb *fakeTB) Cleanup(f func()) { tb.cleanups = append(tb.cleanups, f) }
