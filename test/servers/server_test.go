package servers_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// pretender starts a server that answers INFO with the given text, and all else with OK.
func pretender(t *testing.T, info string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				pretend(conn, info)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		conns.Wait()
	})
	return listener.Addr().String()
}

// pretend answers the commands of one connection, which are arrays of text.
func pretend(conn net.Conn, info string) {
	r := bufio.NewReader(conn)
	length := func(kind byte) (int, bool) {
		line, err := r.ReadString('\n')
		if err != nil || line[0] != kind {
			return 0, false
		}
		n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
		return n, err == nil
	}
	for {
		n, ok := length('*')
		if !ok {
			return
		}
		words := make([]string, n)
		for i := range words {
			size, ok := length('$')
			if !ok {
				return
			}
			word := make([]byte, size+2)
			if _, err := io.ReadFull(r, word); err != nil {
				return
			}
			words[i] = string(word[:size])
		}
		reply := "+OK\r\n"
		switch {
		case strings.EqualFold(words[0], "INFO") && info == "":
			reply = "-NOPERM this user has no permissions to run the 'info' command\r\n"
		case strings.EqualFold(words[0], "INFO"):
			reply = fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)
		case strings.EqualFold(words[0], "HELLO"):
			reply = "-ERR unknown command `HELLO`\r\n"
		case strings.HasPrefix(strings.ToUpper(words[0]), "EVAL"): // counts
			reply = "*6\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n$1\r\n0\r\n"
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

// Every call that needs a server refuses one that is too old, and does so at once. A server
// that does not tell its version is accepted.
func TestServerVersions(t *testing.T) {
	t.Parallel()
	for version, supported := range map[string]bool{
		"# Server\r\nredis_version:5.0.7\r\nredis_mode:standalone\r\n": false,
		"redis_version:2.8.24\r\n":                                     false,
		"redis_version:6.0.16\r\n":                                     false,
		"redis_version:6.2.0\r\n":                                      true,
		"redis_version:7.0.15\r\n":                                     true,
		"redis_version:10.1.0-rc1\r\n":                                 true,
		"redis_version:8.0\r\n":                                        true,
		"# Server\r\nother:1\r\n":                                      true,
		"":                                                             true,
	} {
		client, err := beequeue.Dial(queuetest.Bounded(t), "redis://"+pretender(t, version), func(o *rueidis.ClientOption) {
			o.AlwaysRESP2, o.ForceSingleClient = true, true
		})
		require.NoError(t, err, version)
		q, err := beequeue.New(client, "old", beequeue.Config{})
		require.NoError(t, err)
		if supported {
			require.NoError(t, q.Ready(queuetest.Bounded(t)), version)
		} else {
			ctx := context.Background()
			for _, err := range []error{q.Ready(ctx), q.Process(ctx, 1, queuetest.Succeed), q.Drain(ctx, 1, queuetest.Succeed)} {
				require.ErrorIs(t, err, beequeue.ErrUnsupportedServer, version)
			}
			_, number, _ := strings.Cut(strings.TrimSpace(version), "redis_version:")
			number, _, _ = strings.Cut(number, "\r")
			require.ErrorContains(t, q.Ready(ctx), "it is Redis "+number+", beequeue needs 6.2 or later")
		}
		require.NoError(t, q.Close(queuetest.Bounded(t)))
		client.Close()
	}
}

// Dial goes on until Redis answers, or its context ends.
func TestDial(t *testing.T) {
	t.Parallel()
	_, err := beequeue.Dial(queuetest.Bounded(t), "http://127.0.0.1")
	require.ErrorContains(t, err, "beequeue: dial: ")
	for _, password := range []string{"12%secret", "12/secret", "secret#"} {
		_, err = beequeue.Dial(queuetest.Bounded(t), "redis://worker:"+password+"@127.0.0.1")
		require.ErrorContains(t, err, "percent-encoded", password)
		require.NotContains(t, err.Error(), "secret", password)
	}
	_, err = beequeue.Dial(queuetest.Bounded(t), "redis://127.0.0.1", func(o *rueidis.ClientOption) {
		o.Standalone.ReplicaAddress = []string{"127.0.0.1:1"} // but not when to use it
	})
	require.ErrorIs(t, err, rueidis.ErrNoSendToReplicas)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	for _, silent := range []bool{true, false} { // it does not answer; it refuses the connection
		if !silent {
			require.NoError(t, listener.Close())
		}
		for _, single := range []bool{true, false} {
			queuetest.Within(t, "Dial, and rueidis's own timeout is 5 s", 4*time.Second, func() time.Duration {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				client, err := beequeue.Dial(ctx, "redis://"+address, func(o *rueidis.ClientOption) { o.ForceSingleClient = single })
				require.Nil(t, client)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, address)
				return time.Since(began)
			})
		}
	}

	tries := make(chan string, 100)
	m := miniredis.NewMiniRedis()
	t.Cleanup(m.Close)
	type dialed struct {
		client rueidis.Client
		err    error
	}
	done := make(chan dialed, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		client, err := beequeue.Dial(ctx, "redis://"+address, func(o *rueidis.ClientOption) {
			o.AlwaysRESP2, o.ForceSingleClient = true, true
			o.DialCtxFn = func(ctx context.Context, address string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
				tries <- address
				return dialer.DialContext(ctx, "tcp", address)
			}
		})
		done <- dialed{client, err}
	}()
	for range 3 {
		require.Equal(t, address, queuetest.Receive(t, tries, "a try"))
	}
	require.NoError(t, m.StartAddr(address))
	d := queuetest.Receive(t, done, "a client")
	require.NoError(t, d.err)
	defer d.client.Close()
	cancel() // of no matter any more
	require.NoError(t, d.client.Do(queuetest.Bounded(t), d.client.B().Ping().Build()).Error())
}

// Closing a queue closes all connections that it opened beside the client's own.
func TestConnections(t *testing.T) {
	t.Parallel()
	queuetest.OnReal(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		conns := func() (n int) {
			for client := range strings.Lines(f.Clients()) {
				if strings.Contains(client, " name="+f.Name()+" ") {
					n++
				}
			}
			return n
		}
		require.NoError(t, f.Ready(queuetest.Bounded(t)))
		require.Equal(t, 1, conns(), "one connection for all commands")
		r := queuetest.Process(t, f.Queue, 50, queuetest.Succeed)
		for i := range 20 {
			_, err := f.Save(i).Wait(queuetest.Bounded(t))
			require.NoError(t, err)
		}
		// A connection that is being replaced may still be there.
		queuetest.Within(t, "one more that blocks, one that is subscribed", time.Second, func() time.Duration {
			began := time.Now()
			queuetest.Await(t, "no more than three", func() bool { return conns() <= 3 })
			return time.Since(began)
		})
		require.NoError(t, r.Stop())
		require.NoError(t, f.Close(queuetest.Bounded(t)))
		began := time.Now()
		queuetest.Await(t, "the queue's connections are closed", func() bool { return conns() == 1 })
		require.Less(t, time.Since(began), 15*time.Second, "it is for Close to end them, and not for the client's idle timeout")
	})
}

// Dial's error is about Redis, and not about the try that was cut short when the context
// ended.
func TestDialSaysWhatWasWrong(t *testing.T) {
	t.Parallel()
	broken := errors.New("no way to Redis")
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	_, err := beequeue.Dial(ctx, "redis://127.0.0.1", func(o *rueidis.ClientOption) {
		o.ForceSingleClient = true
		o.DialCtxFn = func(ctx context.Context, _ string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			if tries++; tries == 1 {
				return nil, broken
			}
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	require.Equal(t, 2, tries)
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, err, context.Canceled)
}
