package queuetest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/store"
)

// Patience bounds every wait of the tests for something that must come. It is long
// because the machine may be busy; nothing waits this long when all is well.
const Patience = 90 * time.Second

// Bounded gives a context that ends with the test, or after Patience.
func Bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Await polls until a condition holds, and fails the test if it never does.
func Await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			require.FailNow(t, "waited in vain", "for: %s", what)
		}
	}
}

// Receive takes a value from a channel that must give a value, or be closed.
func Receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	select {
	case v := <-c:
		return v
	case <-deadline.C:
		require.FailNow(t, "waited in vain", "for: %s", what)
		panic("unreachable")
	}
}

// Dial connects to a URL. The client is closed when the test is over.
func Dial(t *testing.T, url string, options ...func(*rueidis.ClientOption)) rueidis.Client {
	t.Helper()
	client, err := beequeue.Dial(Bounded(t), url, options...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// SkipShort skips, under -short, a test that starts servers of its own.
func SkipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers and takes its time: not with -short")
	}
}

// IsScript reports whether a request runs a script; it suits redistest.Proxy.DropReplies.
func IsScript(request []byte) bool { return bytes.Contains(request, []byte("EVAL")) }

// Runs reports whether a request runs the script of that name, by its SHA1 or its text.
func Runs(request []byte, script string) bool {
	for _, s := range store.Scripts() {
		if s.Name == script {
			return bytes.Contains(request, []byte(s.SHA)) || bytes.Contains(request, []byte(s.Source))
		}
	}
	return false
}
