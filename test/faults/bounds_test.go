package faults_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// Calls without a deadline end after CallTimeout, and at once when the client is
// closed.
func TestFaultReadsAreBounded(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	proxy := redistest.StartProxy(t, s.Addr)
	client := queuetest.Dial(t, proxy.URL())
	q := open(t, client, newName(), beequeue.Config{CallTimeout: 500 * time.Millisecond})
	q.save(nil)
	reads := func() []error {
		_, audit := q.Audit(context.Background())
		_, counts := q.Counts(context.Background())
		_, jobs := q.GetJobs(context.Background(), beequeue.StateWaiting, beequeue.Page{})
		return []error{audit, counts, jobs}
	}
	proxy.Block()
	began := time.Now()
	for _, err := range reads() {
		require.Error(t, err)
	}
	require.Less(t, time.Since(began), 9*time.Second)

	client = queuetest.Dial(t, s.URL())
	q = open(t, client, newName(), beequeue.Config{CallTimeout: 5 * time.Second}) // six tries take up to 620 ms
	client.Close()
	for _, err := range reads() {
		require.ErrorIs(t, err, rueidis.ErrClosing)
		require.NotContains(t, err.Error(), "%!")
	}
}

// Close does not wait for a connection that the client has not got.
func TestFaultCloseWithSmallPool(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL(), func(o *rueidis.ClientOption) { o.BlockingPoolSize = 2 })
	first := open(t, client, newName(), beequeue.Config{ShutdownTimeout: time.Second})
	first.OnJobSucceeded(func(string, json.RawMessage) {})
	started, finish := make(chan string, 1), make(chan struct{})
	first.process(1, func(_ context.Context, job *beequeue.Job) (any, error) {
		started <- job.ID
		<-finish
		return nil, nil
	})
	clients := func() string {
		list, err := client.Do(queuetest.Bounded(t), client.B().ClientList().Build()).ToString()
		require.NoError(t, err)
		return list
	}
	subscribed := regexp.MustCompile(` sub=[1-9]`)
	subscriptions := func() int { return len(subscribed.FindAllString(clients(), -1)) }
	queuetest.Await(t, "both connections to be in use", func() bool { return strings.Contains(clients(), "cmd=blmove") && subscriptions() == 1 })
	queuetest.Receive(t, started, first.save(nil).ID)
	second := open(t, client, newName(), beequeue.Config{})
	second.OnJobSucceeded(func(string, json.RawMessage) {}) // takes the one that is free
	queuetest.Await(t, "the other subscription", func() bool { return subscriptions() == 2 })
	began := time.Now()
	time.AfterFunc(100*time.Millisecond, func() { close(finish) })
	_ = first.Close(queuetest.Bounded(t)) // what it says of the connection that it did not get is no matter
	assert.Less(t, time.Since(began), 15*time.Second)
}

// A worker does not repeat a refused blocking call again and again.
func TestFaultStandingTurnRefused(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	view := &keys{t, client, q.KeyPrefix()}
	q.process(4, func(context.Context, *beequeue.Job) (any, error) { return nil, nil })
	q.save(nil)
	view.allSucceeded(1)
	view.number("DEL", "owners")
	require.NoError(t, client.Do(queuetest.Bounded(t), client.B().Set().Key(q.KeyPrefix()+"owners").Value("x").Build()).Error())
	before := q.errs.count()
	q.save(nil)
	queuetest.Await(t, "OnError", func() bool { return q.errs.count() > before })
	queuetest.Calm(t, "errors told", 3*time.Second, 24, q.errs.count)
	view.number("DEL", "owners")
	view.allSucceeded(2)
}

// Wait does not rely on events, because workers may send none.
func TestFaultWaitWithoutEvents(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client := queuetest.Dial(t, s.URL())
	q := open(t, client, newName(), beequeue.Config{})
	w := open(t, client, q.Name(), beequeue.Config{NoEvents: true})
	view := &keys{t, client, q.KeyPrefix()}
	q.OnJobSucceeded(func(string, json.RawMessage) {})
	queuetest.Await(t, "the subscription", func() bool { return subscribersOf(t, client, q.KeyPrefix()) == 1 })
	removed := q.save(nil)
	require.NoError(t, q.RemoveJob(queuetest.Bounded(t), removed.ID))
	w.process(4, func(context.Context, *beequeue.Job) (any, error) { return 1, nil })
	n := 0
	queuetest.Within(t, "two Waits, of which each would look again after 5 s", 4*time.Second, func() time.Duration {
		job := q.save(nil)
		n++
		view.allSucceeded(n)
		began := time.Now()
		result, err := job.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
		require.JSONEq(t, "1", string(result))
		_, err = removed.Wait(queuetest.Bounded(t))
		require.ErrorIs(t, err, beequeue.ErrNotFound)
		return time.Since(began)
	})
}

// closingClient runs a call of a lane, and then says six times that it is closed. A client
// of Sentinel may do so in a failover.
type closingClient struct {
	rueidis.Client

	lane   string
	closed rueidis.Client
	times  atomic.Int32
	goOn   chan struct{} // if it is not nil, the second time waits until it is closed
}

func (c *closingClient) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	words := strings.Join(command.Commands(), " ")
	if strings.HasPrefix(words, "EVALSHA ") && strings.Contains(words, c.lane) {
		if n := c.times.Load(); n > 0 {
			if c.times.Add(-1); n == 6 {
				_ = c.Client.Do(ctx, command)
			} else if n == 5 && c.goOn != nil {
				<-c.goOn
			}
			return c.closed.Do(ctx, c.closed.B().Ping().Build())
		}
	}
	return c.Client.Do(ctx, command)
}

// The client gives up a turn whose reply does not come. The turn is repeated under its
// number: its outcomes are recorded once, and its claims run.
func TestFaultTurnUncertain(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	inner, closed := queuetest.Dial(t, s.URL()), queuetest.Dial(t, s.URL())
	closed.Close()
	client := &closingClient{Client: inner, lane: ":turn0 ", closed: closed}
	q := open(t, client, newName(), beequeue.Config{})
	view := &keys{t, inner, q.KeyPrefix()}
	started, finish := make(chan string, 10), make(chan struct{})
	q.process(1, func(_ context.Context, job *beequeue.Job) (any, error) {
		started <- job.ID
		<-finish
		return nil, nil
	})
	first := q.save(nil)
	require.Equal(t, first.ID, queuetest.Receive(t, started, "the first job"))
	second := q.save(nil)
	client.times.Store(6)
	close(finish)
	require.Equal(t, second.ID, queuetest.Receive(t, started, "the second job"))
	view.allSucceeded(2)
	require.NoError(t, q.errs.find(beequeue.ErrOwnershipLost, ""))
	require.Empty(t, started)
}

// The client gives up a Save whose reply does not come. The Save is repeated under its
// number: its job is stored once.
func TestFaultSaveUncertain(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	inner, closed := queuetest.Dial(t, s.URL()), queuetest.Dial(t, s.URL())
	closed.Close()
	client := &closingClient{Client: inner, lane: ":save", closed: closed, goOn: make(chan struct{})}
	q := open(t, client, newName(), beequeue.Config{})
	view := &keys{t, inner, q.KeyPrefix()}
	q.save(nil)
	client.times.Store(6)
	second := q.CreateJob(nil)
	short, cancel := context.WithCancel(context.Background())
	defer cancel()
	uncertain := make(chan error, 1)
	go func() { uncertain <- second.Save(short) }()
	queuetest.Await(t, "the save to be sent", func() bool { return client.times.Load() < 6 })
	cancel()
	require.ErrorIs(t, queuetest.Receive(t, uncertain, "Save"), beequeue.ErrUncertain)
	close(client.goOn)
	require.NoError(t, second.Save(queuetest.Bounded(t)))
	require.Zero(t, client.times.Load(), "the client gave up")
	require.EqualValues(t, 2, view.number("LLEN", "waiting"))
	require.Equal(t, "2", second.ID)
}

// The error of a closed client comes back, with a reason.
func TestFaultClosedClient(t *testing.T) {
	t.Parallel()
	closed := queuetest.Dial(t, startRedis(t).URL())
	q := open(t, closed, newName(), beequeue.Config{})
	closed.Close()
	for _, err := range []error{q.Ready(queuetest.Bounded(t)), func() error { _, err := q.Counts(queuetest.Bounded(t)); return err }()} {
		require.ErrorIs(t, err, rueidis.ErrClosing)
		require.NotContains(t, err.Error(), "%!")
	}
}

// garblingClient runs a script, and then gives the answer to something else.
type garblingClient struct {
	rueidis.Client

	lane  string
	times atomic.Int32
}

func (c *garblingClient) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	words := strings.Join(command.Commands()[:min(len(command.Commands()), 20)], " ")
	result := c.Client.Do(ctx, command)
	if strings.HasPrefix(words, "EVAL") && strings.Contains(words, c.lane) && result.Error() == nil && c.times.Add(-1) >= 0 {
		return c.Client.Do(ctx, c.Client.B().Ping().Build())
	}
	return result
}

// A reply that cannot be read does not tell what was done. The call is repeated under its
// name: a job is saved once, and claimed jobs are run.
func TestFaultRepliesGarbled(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	inner := queuetest.Dial(t, s.URL())
	for _, lane := range []string{":save", ":turn0 "} {
		client := &garblingClient{Client: inner, lane: lane}
		client.times.Store(3)
		q := open(t, client, newName(), beequeue.Config{})
		view := &keys{t, inner, q.KeyPrefix()}
		q.save(nil)
		started := make(chan string, 10)
		q.process(1, func(_ context.Context, job *beequeue.Job) (any, error) {
			started <- job.ID
			return nil, nil
		})
		require.Equal(t, "1", queuetest.Receive(t, started, "the job"))
		view.allSucceeded(1)
		require.Empty(t, started)
		require.Negative(t, client.times.Load(), "all three were garbled")
		require.NoError(t, q.errs.find(beequeue.ErrOwnershipLost, ""))
	}
}

// breakingConn breaks in the middle of the first HMGET, and its writer does not notice.
// Later writes go nowhere, and wait until goOn is closed.
type breakingConn struct {
	net.Conn
	breaks  *atomic.Bool
	goOn    <-chan struct{}
	wrote   chan<- string
	nowhere []byte
}

func (c *breakingConn) Write(b []byte) (int, error) {
	switch {
	case c.nowhere != nil:
	case bytes.Contains(b, []byte("HMGET")) && c.breaks.CompareAndSwap(true, false):
		_ = c.SetReadDeadline(time.Now())
		<-c.goOn
	default:
		return c.Conn.Write(b)
	}
	if c.nowhere = append(c.nowhere, b...); bytes.Contains(b, []byte("PING")) { // the client's last
		c.wrote <- string(c.nowhere)
		return 0, net.ErrClosed
	}
	return len(b), nil
}

// The client repeats a read when its connection broke, and then reuses its memory for the
// next command. The broken connection may still be writing that memory.
func TestFaultReadMadeAgain(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	var breaks atomic.Bool
	goOn, wrote := make(chan struct{}), make(chan string, 1)
	client := queuetest.Dial(t, s.URL(), func(o *rueidis.ClientOption) {
		o.DialCtxFn = func(ctx context.Context, address string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", address)
			return &breakingConn{Conn: conn, breaks: &breaks, goOn: goOn, wrote: wrote}, err
		}
	})
	q := open(t, client, newName(), beequeue.Config{})
	ids := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 100_000), strings.Repeat("c", 100_000)} // more than a buffer
	for _, id := range ids {
		require.NoError(t, q.CreateJob(nil).SetID(id).Save(queuetest.Bounded(t)))
	}
	breaks.Store(true)
	for range 20 {
		jobs, err := q.GetJobs(queuetest.Bounded(t), beequeue.StateWaiting, beequeue.Page{})
		require.NoError(t, err)
		require.Len(t, jobs, 3)
	}
	close(goOn)
	written := queuetest.Receive(t, wrote, "the end of the connection")
	for i, id := range ids {
		require.Equal(t, 1, strings.Count(written, id), "id %d, as it was", i)
	}
}
