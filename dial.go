package beequeue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/store"
)

// Dial connects to Redis with options that suit a queue: small buffers, no client-side
// cache, one pipelined connection for each server, and a question to Sentinel every 5 s
// which server is the master. Any other rueidis.Client works as well; Dial is a
// convenience. The caller closes the client.
//
// The URL is rueidis's: redis://host:6379/0 for one server or a cluster (more nodes as
// ?addr=host:port), rediss:// for TLS, ?master_set=name for Sentinel, unix:// for a
// socket. Names and passwords in it are percent-encoded, as url.UserPassword does. Each
// option func may change the options before they are used.
//
// While Redis does not answer, or refuses the connection for whatever reason, Dial tries
// again, at most a second apart, until ctx ends. So a program that starts before its Redis
// waits for it, or as long as context.WithTimeout says. Meanwhile slog's default logger
// gets at most one error a second. Once Dial has returned a client, Redis may come and go,
// and ctx may end.
//
// When ctx ends, the error wraps ctx's cause, and Redis's last error if a try had come to
// its end before. Dial returns at once if the URL cannot be read, or if the options
// contradict each other.
func Dial(ctx context.Context, url string, options ...func(*rueidis.ClientOption)) (rueidis.Client, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil {
		if strings.Contains(url, "@") {
			return nil, errors.New("beequeue: dial: want a URL such as redis://user:password@host:6379, names and passwords percent-encoded;" +
				" what is wrong with it is not said here, for that may show the password")
		}
		return nil, fmt.Errorf("beequeue: dial: want a URL such as redis://host:6379: %w", err)
	}
	option.DisableCache = true
	option.PipelineMultiplex = -1
	option.AlwaysPipelining = true
	option.RingScaleEachConn = 8
	option.ReadBufferEachConn = 32 << 10
	option.WriteBufferEachConn = 32 << 10
	option.BlockingPoolCleanup = 30 * time.Second
	option.ConnWriteTimeout = 5 * time.Second
	option.Dialer.KeepAlive = 3 * time.Second // between the pings of a quiet connection
	if option.Sentinel.MasterSet != "" {
		option.Sentinel.TopologyRefreshInterval = 5 * time.Second
	}
	for _, change := range options {
		change(&option)
	}
	d := newDialer(&option)
	var wait store.Pause
	var told time.Time
	var last error
	for {
		client, err := d.try(ctx, option)
		if err == nil {
			return client, nil
		}
		if !d.dialed {
			return nil, fmt.Errorf("beequeue: dial: %w", err) // the options are wrong
		}
		if ctx.Err() != nil && last != nil {
			err = last // the error of a try that was cut short says nothing about Redis
		}
		last = err
		if ctx.Err() == nil && time.Since(told) >= time.Second {
			slog.Default().Error("beequeue: dial: Redis cannot be used yet", "address", option.InitAddress, "error", err)
			told = time.Now()
		}
		if ctx.Err() != nil || !store.Sleep(ctx, wait.Next()) {
			return nil, fmt.Errorf("beequeue: dial %v: %w (%w)", option.InitAddress, err, context.Cause(ctx))
		}
	}
}

// dialer makes a client's connections. rueidis makes the first of them without a context,
// so the dialer ends those with Dial's context.
type dialer struct {
	dial func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

	mu       sync.Mutex
	dialed   bool            // a connection was tried, so the options are right
	starting context.Context //nolint:containedctx // Dial's, while it tries
	release  []func() bool   // keep connections open when starting ends
}

// newDialer makes a dialer, and changes the options to connect by it.
func newDialer(option *rueidis.ClientOption) *dialer {
	d := &dialer{dial: option.DialCtxFn}
	if plain := option.DialFn; d.dial == nil && plain != nil {
		d.dial = func(_ context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			return plain(address, dialer, config)
		}
	}
	if d.dial == nil {
		d.dial = dialTCP
	}
	option.DialCtxFn = func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := d.connect(ctx, address, dialer, config)
		if secure, ok := conn.(*tls.Conn); ok && err == nil && !option.DisableTCPNoDelay { // with that option, rueidis needs the *tls.Conn itself
			return &secureConn{Conn: secure}, nil
		}
		return conn, err
	}
	return d
}

// dialTCP connects as rueidis does by itself.
func dialTCP(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return dialer.DialContext(ctx, "tcp", address)
	}
	secure := tls.Dialer{NetDialer: dialer, Config: config}
	return secure.DialContext(ctx, "tcp", address)
}

// try makes a client, unless ctx ends first.
func (d *dialer) try(ctx context.Context, option rueidis.ClientOption) (rueidis.Client, error) {
	d.mu.Lock()
	d.starting = ctx
	d.mu.Unlock()
	client, err := rueidis.NewClient(option)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, release := range d.release {
		release()
	}
	d.starting, d.release = nil, nil
	if err == nil && ctx.Err() != nil { // the end of ctx may have closed its connections
		client.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return client, nil
}

// connect makes one connection. While Dial tries, the end of its context closes it.
func (d *dialer) connect(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
	d.mu.Lock()
	starting := d.starting
	d.dialed = true
	d.mu.Unlock()
	if starting == nil {
		return d.dial(ctx, address, dialer, config)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(starting, cancel)() //nolint:contextcheck // either of the two ends it
	conn, err := d.dial(ctx, address, dialer, config)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starting == starting {
		d.release = append(d.release, context.AfterFunc(starting, func() { _ = conn.Close() })) //nolint:contextcheck // outlives ctx
	}
	return conn, nil
}

// secureConn finds out why a server hung up. In TLS 1.3 a client learns only when it reads
// whether the server accepts its certificate. rueidis writes first, and a server that has
// hung up by then leaves it with no more than "connection reset".
type secureConn struct {
	*tls.Conn
	read atomic.Bool // a read has begun
}

// alertTime bounds the wait for the server's alert, which should have arrived already.
const alertTime = 100 * time.Millisecond

func (c *secureConn) Read(b []byte) (int, error) {
	c.read.Store(true)
	return c.Conn.Read(b)
}

// Write returns the server's alert instead of its own error, if nobody has read yet.
func (c *secureConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil || c.read.Swap(true) {
		return n, err
	}
	_ = c.SetReadDeadline(time.Now().Add(alertTime)) // the connection is of no use any more
	var alert *net.OpError
	if _, why := c.Conn.Read(make([]byte, 1)); errors.As(why, &alert) && alert.Op == "remote error" {
		return n, why
	}
	return n, err
}
