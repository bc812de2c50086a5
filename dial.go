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
)

// Dial connects to Redis with options that suit a queue: small buffers, no
// client-side cache, one pipelined connection for each server, and a check of
// Sentinel's word every 5 s. The URL is rueidis's: redis://host:6379/0 for one
// server or a cluster (more nodes as ?addr=host:port), rediss:// for TLS,
// ?master_set=name for Sentinel, unix:// for a socket. Names and passwords in it are
// percent-encoded, as url.UserPassword does. Each option func may change the options
// before they are used. The caller closes the client.
//
// Where Redis does not answer, or refuses the connection, for whatever reason,
// Dial goes on trying, at most a second apart, until ctx ends; the error then
// wraps ctx's and the last one of Redis, if a try came to its end before. Meanwhile
// slog's default logger gets an error a second at most. So a program that starts
// before its Redis waits for it, or for as long as context.WithTimeout says. Once
// Dial has returned a client, Redis may come and go, and ctx may end. A URL that
// cannot be read and options that contradict each other come back at once.
//
// Any other rueidis.Client works as well; Dial is a convenience.
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
	var wait pause
	var told time.Time
	var last error
	for {
		client, err := d.try(ctx, option)
		if err == nil {
			return client, nil
		}
		if !d.dialed {
			return nil, fmt.Errorf("beequeue: dial: %w", err) // it is not Redis's fault
		}
		if ctx.Err() != nil && last != nil {
			err = last // a try that was cut short does not say what is wrong
		}
		last = err
		if ctx.Err() == nil && time.Since(told) >= time.Second {
			slog.Default().Error("beequeue: dial: Redis cannot be used yet", "address", option.InitAddress, "error", err)
			told = time.Now()
		}
		if ctx.Err() != nil || !sleep(ctx, wait.next()) {
			return nil, fmt.Errorf("beequeue: dial %v: %w (%w)", option.InitAddress, err, context.Cause(ctx))
		}
	}
}

// A dialer makes a client's connections. rueidis makes the first of them without
// a context; those end with Dial's.
type dialer struct {
	dial func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

	mu       sync.Mutex
	dialed   bool            // there was something to connect to
	starting context.Context //nolint:containedctx // Dial's, while it tries
	release  []func() bool   // of what closes connections when that ends
}

// newDialer has the connections of a client pass through a dialer.
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
		if secure, ok := conn.(*tls.Conn); ok && err == nil && !option.DisableTCPNoDelay { // for that, rueidis wants the bare connection
			return &secureConn{Conn: secure}, nil
		}
		return conn, err
	}
	return d
}

// dialTCP is what rueidis does by itself.
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
	if err == nil && ctx.Err() != nil { // its connections may be closed
		client.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return client, nil
}

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

// A secureConn finds out why a server hung up. In TLS 1.3 a client learns only when it
// reads what the server thinks of its certificate. rueidis writes first, and if the
// server has gone by then, knows no more than that the connection was reset.
type secureConn struct {
	*tls.Conn
	read atomic.Bool // somebody has begun to read
}

// alertTime bounds the wait for a reason that should be there.
const alertTime = 100 * time.Millisecond

func (c *secureConn) Read(b []byte) (int, error) {
	c.read.Store(true)
	return c.Conn.Read(b)
}

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
