package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/examples/internal/embedded"
	"github.com/gobeequeue/beequeue/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestRunByItself(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	complete := func() bool {
		for _, want := range []string{"200 OK", `{"below":100,"primes":25}`, "400 Bad", "502 Bad", "504 Gateway"} {
			if !strings.Contains(out.String(), want) {
				return false
			}
		}
		return true
	}
	// The last request takes all the time that a request may take. The others have to be
	// answered before, on any machine.
	for _, wait := range []string{"700ms", "5s", "30s"} {
		out.Reset()
		require.NoError(t, run(t.Context(), []string{"-wait", wait}, &out))
		if complete() {
			return
		}
	}
	assert.Fail(t, "something is missing", out.String())
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	_, s := open(t)
	ctx, stop := context.WithCancel(t.Context())
	worked := make(chan error, 1)
	go func() { worked <- work(ctx, s.queue, s.log) }()
	for _, c := range []struct {
		below, body string
		status      int
	}{
		{"3", `{"below":3,"primes":1}` + "\n", http.StatusOK},
		{"1000", `{"below":1000,"primes":168}` + "\n", http.StatusOK},
		{"", "below is not a number\n", http.StatusBadRequest},
		{"-1", "the worker failed: there is nothing to count below -1\n", http.StatusBadGateway},
	} {
		response := s.get(t.Context(), c.below)
		assert.Equal(t, c.status, response.Code)
		assert.Equal(t, c.body, response.Body.String())
	}
	stop()
	require.NoError(t, <-worked)
	s.empty(t)
}

func TestTimeRunsOut(t *testing.T) {
	t.Parallel()
	for wait := 50 * time.Millisecond; ; wait *= 8 {
		_, s := open(t)
		s.wait = wait // and nobody works
		code := s.get(t.Context(), "10").Code
		if code == http.StatusServiceUnavailable && wait < 10*time.Second {
			continue // too short to save the job, on a machine that is busy
		}
		assert.Equal(t, http.StatusGatewayTimeout, code)
		s.empty(t)
		return
	}
}

func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	_, s := open(t)
	ctx, leave := context.WithCancel(t.Context())
	started := make(chan struct{})
	stopped := make(chan error, 1)
	go func() {
		stopped <- s.queue.Process(t.Context(), 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
			close(started)
			<-ctx.Done() // at the next heartbeat, as the job is removed
			stopped <- context.Cause(ctx)
			return nil, context.Cause(ctx)
		})
	}()
	go func() {
		<-started
		leave()
	}()
	assert.Equal(t, http.StatusGatewayTimeout, s.get(ctx, "10").Code)
	require.ErrorIs(t, <-stopped, beequeue.ErrOwnershipLost)
	s.empty(t)
	require.NoError(t, s.queue.Close(t.Context()))
	require.NoError(t, <-stopped)
}

func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	redis, s := open(t)
	redis.SetError("LOADING Redis is loading the dataset in memory")
	s.wait = 50 * time.Millisecond
	assert.Equal(t, http.StatusServiceUnavailable, s.get(t.Context(), "10").Code)
}

// open makes a server on a miniredis of its own.
func open(t *testing.T) (*miniredis.Miniredis, *server) {
	t.Helper()
	redis := miniredis.NewMiniRedis()
	client, err := embedded.Dial(t.Context(), redis)
	require.NoError(t, err)
	queue, err := beequeue.New(client, "primes", beequeue.Config{
		StallInterval:   time.Second,
		ShutdownTimeout: 50 * time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, queue.Close(context.WithoutCancel(t.Context())))
		client.Close()
		redis.Close()
	})
	return redis, &server{queue: queue, wait: 10 * time.Second, log: log.New(io.Discard, "", 0)}
}

func (s *server) get(ctx context.Context, below string) *httptest.ResponseRecorder {
	response := httptest.NewRecorder()
	s.handler().ServeHTTP(response, httptest.NewRequestWithContext(ctx, http.MethodGet, "/primes?below="+below, http.NoBody))
	return response
}

// empty checks that no request has left a job behind.
func (s *server) empty(t *testing.T) {
	t.Helper()
	counts, err := s.queue.Counts(t.Context())
	require.NoError(t, err)
	counts.NewestJob = 0
	assert.Zero(t, counts)
}
