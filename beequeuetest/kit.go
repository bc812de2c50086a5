package beequeuetest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
)

// A Kit is a Redis server for one test, a client of it, and a clock. It is safe
// for use by several goroutines.
type Kit struct {
	tb     testing.TB
	redis  *miniredis.Miniredis
	client rueidis.Client
	clock  clock
}

// New makes a kit, which lasts until the test and its subtests are over.
func New(tb testing.TB) *Kit {
	tb.Helper()
	k := &Kit{tb: tb, redis: miniredis.NewMiniRedis()}
	k.redis.ClockTTL(true)
	k.clock.redis = k.redis
	k.clock.tick()
	tb.Cleanup(k.redis.Close)

	var err error
	k.client, err = beequeue.Dial(context.Background(), "redis://beequeuetest", func(option *rueidis.ClientOption) {
		// What miniredis can do.
		option.DisableCache = true
		option.AlwaysRESP2 = true
		option.ForceSingleClient = true
		option.DialCtxFn = k.dial
		option.Dialer.KeepAlive = -1 // these connections do not die in silence
	})
	if err != nil {
		tb.Fatalf("beequeuetest: %v", err)
	}
	tb.Cleanup(k.client.Close)
	return k
}

// dial connects to the server, within the process.
func (k *Kit) dial(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	conn, err := k.redis.Dial()
	if err != nil {
		return nil, err
	}
	return clockedConn{conn, &k.clock}, nil
}

// Queue makes a queue. Queues of one name are one queue to Redis, as in several
// processes; other names, or another Config.Prefix, keep them apart. Where
// Config.Logger is nil, the log goes to the test's output.
//
// The queue is closed when the test is over. The test fails if handlers that
// still run then do not return within Config.ShutdownTimeout.
func (k *Kit) Queue(name string, config beequeue.Config) *beequeue.Queue {
	k.tb.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(k.tb.Output(), nil))
	}
	q, err := beequeue.New(k.client, name, config)
	if err != nil {
		k.tb.Fatalf("beequeuetest: %v", err)
	}
	k.tb.Cleanup(func() {
		if err := q.Close(context.Background()); err != nil {
			k.tb.Errorf("beequeuetest: %v", err)
		}
	})
	return q
}

// Client returns the kit's client, for code that makes its queues itself. The
// kit closes it when the test is over.
func (k *Kit) Client() rueidis.Client { return k.client }

// Redis returns the server, to look into it or to make it fail (SetError). Its
// clock is the kit's: what SetTime sets lasts only until the next command.
func (k *Kit) Redis() *miniredis.Miniredis { return k.redis }
