package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
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

func TestDemoAccountsForEveryJob(t *testing.T) {
	t.Parallel()
	o, err := parse(nil)
	require.NoError(t, err)
	var out bytes.Buffer
	s, err := runDemo(t.Context(), o, newConsole(&out))
	require.NoError(t, err)
	require.NoError(t, s.check())
	assert.Equal(t, 49, s.saved)
	assert.Equal(t, 48, s.sent)
	assert.Equal(t, 1, s.failed)
	assert.Equal(t, 1, s.gone)
	assert.Positive(t, s.retried)
	assert.Equal(t, s.retried, strings.Count(out.String(), "will be retried"))
	assert.NotContains(t, out.String(), "error:")
}

func TestDemoStopsEarly(t *testing.T) {
	t.Parallel()
	for tries := 1; ; tries++ {
		ctx, stop := context.WithCancel(t.Context())
		out := &awaited{text: "will be retried", found: stop}
		err := run(ctx, nil, out)
		require.ErrorIs(t, err, context.Canceled)
		if !strings.Contains(out.String(), "saved") && tries < 10 {
			continue // the first push had failed before the API had answered
		}
		assert.Contains(t, out.String(), "saved     49 jobs")
		return
	}
}

// The three sides as three processes would run them.
func TestSides(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	server.ClockTTL(true)
	redis := "redis://" + server.Addr() + "?protocol=2"
	ctx, stop := context.WithCancel(t.Context())
	var sides sync.WaitGroup
	defer sides.Wait()
	defer stop()
	side := func(ready string, args ...string) (line string) {
		found := make(chan struct{})
		out := &awaited{text: ready, found: sync.OnceFunc(func() { close(found) })}
		sides.Go(func() { assert.NoError(t, run(ctx, args, out)) })
		<-found
		return out.String()
	}
	line := side("ready on", "gateway", "-listen", "127.0.0.1:0")
	gateway := strings.TrimSpace(line[strings.Index(line, "http://"):])
	line = side("ready", "-redis", redis, "api", "-listen", "127.0.0.1:0", "-members", "3")
	line, _, _ = strings.Cut(line, "\n")
	jobs, err := post(t.Context(), line[strings.Index(line, "http://"):], message{Sender: "member-2", Text: "hi"})
	require.NoError(t, err)
	assert.Equal(t, 2, jobs)
	side("job 2 sent", "-redis", redis, "-gateway", gateway, "worker", "-v", "-concurrency", "1")
}

func TestAPI(t *testing.T) {
	t.Parallel()
	const good = `{"sender":"member-3","text":"hi"}`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		waiting                  int64
	}{
		{"good", "POST", "/rooms/lobby/messages", good, http.StatusAccepted, 49},
		{"bad JSON", "POST", "/rooms/lobby/messages", `{"sender":`, http.StatusBadRequest, 0},
		{"no text", "POST", "/rooms/lobby/messages", `{"sender":"member-3"}`, http.StatusBadRequest, 0},
		{"too long", "POST", "/rooms/lobby/messages", `{"text":"` + strings.Repeat("x", 64<<10), http.StatusBadRequest, 0},
		{"stranger", "POST", "/rooms/lobby/messages", `{"sender":"nobody","text":"hi"}`, http.StatusForbidden, 0},
		{"unknown room", "POST", "/rooms/attic/messages", good, http.StatusNotFound, 0},
		{"method", "GET", "/rooms/lobby/messages", "", http.StatusMethodNotAllowed, 0},
		{"path", "POST", "/rooms", good, http.StatusNotFound, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, queue := open(t)
			response := httptest.NewRecorder()
			newChat(queue, 50, newConsole(io.Discard)).handler().
				ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body)))
			assert.Equal(t, c.status, response.Code, response.Body)
			counts, err := queue.Counts(t.Context())
			require.NoError(t, err)
			assert.Equal(t, c.waiting, counts.Waiting)
		})
	}
}

func TestAPILeavesOutTheSender(t *testing.T) {
	t.Parallel()
	_, queue := open(t)
	api := newChat(queue, 3, newConsole(io.Discard))
	_, err := api.savePushes(t.Context(), api.rooms[roomName], message{Sender: "member-2", Text: "hi"})
	require.NoError(t, err)
	jobs, err := queue.GetJobs(t.Context(), beequeue.StateWaiting, beequeue.Page{})
	require.NoError(t, err)
	var got []Push
	for _, job := range jobs {
		var push Push
		require.NoError(t, job.Decode(&push))
		got = append(got, push)
	}
	assert.Equal(t, []Push{{"phone-of-member-3", "member-2: hi"}, {"phone-of-member-1", "member-2: hi"}}, got)
}

func TestAPIWithoutRedis(t *testing.T) {
	t.Parallel()
	server, queue := open(t)
	server.SetError("LOADING Redis is loading the dataset in memory")
	api := newChat(queue, 50, newConsole(io.Discard))
	api.saveTimeout = 50 * time.Millisecond
	response := httptest.NewRecorder()
	api.handler().ServeHTTP(response, httptest.NewRequestWithContext(t.Context(),
		"POST", "/rooms/lobby/messages", strings.NewReader(`{"sender":"member-3","text":"hi"}`)))
	assert.Equal(t, http.StatusServiceUnavailable, response.Code)
	assert.NotEmpty(t, response.Header().Get("Retry-After"))
}

func TestWorkerReadsTheGatewaysAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, retryAfter string
		status           int
		message          string
		forGood          bool
		delay            time.Duration // before the next try
	}{
		{"sent", "", http.StatusOK, "", false, 100 * time.Millisecond},
		{"fault", "", http.StatusInternalServerError, "500", false, 100 * time.Millisecond},
		{"slow down", "2", http.StatusTooManyRequests, "429", false, 2 * time.Second},
		{"slow down, no time", "soon", http.StatusTooManyRequests, "429", false, 100 * time.Millisecond},
		{"gone", "", http.StatusGone, "gone", true, 100 * time.Millisecond},
		{"our fault", "", http.StatusBadRequest, "400", true, 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", c.retryAfter)
				w.WriteHeader(c.status)
				_ = json.NewEncoder(w).Encode(Receipt{ID: "r1"})
			}))
			defer gateway.Close()
			_, queue := open(t)
			w := newWorker(options{gateway: gateway.URL, concurrency: 1}, queue, newConsole(io.Discard))
			defer w.http.CloseIdleConnections()
			job := queue.CreateJob(Push{Device: "d"}).Backoff(beequeue.Exponential, 100*time.Millisecond)
			receipt, err := w.push(t.Context(), job)
			assert.Equal(t, c.delay, job.Options.Backoff.Delay)
			if c.message == "" {
				require.NoError(t, err)
				assert.Equal(t, Receipt{ID: "r1"}, receipt)
				return
			}
			require.ErrorContains(t, err, c.message)
			assert.Equal(t, c.forGood, errors.Is(err, beequeue.ErrNoRetry))
		})
	}
}

func TestGatewayRepeatsItselfWithTheSameSeed(t *testing.T) {
	t.Parallel()
	draw := func(seed uint64) (all []int) {
		g := newGateway(seed)
		for range 20 {
			luck, _ := g.draw("d")
			all = append(all, luck)
		}
		return all
	}
	first, again, other := draw(1), draw(1), draw(2)
	assert.Equal(t, first, again)
	assert.NotEqual(t, first, other)
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"worker", "api", "x", "gateway x", "-members 1", "-concurrency 0", "-members x"} {
		_, err := parse(strings.Fields(args))
		require.ErrorIs(t, err, errUsage, args)
	}
	o, err := parse([]string{"-redis", "redis://a", "worker", "-concurrency", "3"})
	require.NoError(t, err)
	assert.Equal(t, "worker", o.mode)
	assert.Equal(t, 3, o.concurrency)
}

func TestConsoleKeepsLogLinesWhole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	show := newConsole(&out)
	show.live = true
	show.status(counts{expected: 2, sent: 1})
	show.logf("hello")
	show.clear()
	const line = "1 of 2 pushes done: 1 sent, 0 retried, 0 failed"
	got := out.String()
	assert.True(t, strings.HasPrefix(got, erase+line+erase), got)
	assert.True(t, strings.HasSuffix(got, " hello\n"+line+erase), got)
}

// open makes a queue on a miniredis of its own.
func open(t *testing.T) (*miniredis.Miniredis, *beequeue.Queue) {
	t.Helper()
	server := miniredis.NewMiniRedis()
	client, err := embedded.Dial(t.Context(), server)
	require.NoError(t, err)
	queue, err := beequeue.New(client, queueName, beequeue.Config{ShutdownTimeout: 50 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, queue.Close(context.WithoutCancel(t.Context())))
		client.Close()
		server.Close()
	})
	return server, queue
}

// awaited keeps what is written to it, and calls found when a text is in it.
type awaited struct {
	text  string
	found func()

	mu  sync.Mutex
	all bytes.Buffer
}

func (a *awaited) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all.Write(p)
	if strings.Contains(a.all.String(), a.text) {
		a.found()
	}
	return len(p), nil
}

func (a *awaited) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all.String()
}
