// Package embedded gives the examples their Redis: the one they are told of, or
// else a miniredis inside the process, so that there is nothing to set up.
package embedded

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
)

// Open connects to the server, Sentinel or cluster at url, or starts a miniredis
// if url is empty. What it returns ends the connection, and the miniredis with
// all that is in it. Close the queues first.
func Open(ctx context.Context, url string) (rueidis.Client, func(), error) {
	if url != "" {
		client, err := beequeue.Dial(ctx, url)
		if err != nil {
			return nil, nil, err
		}
		return client, client.Close, nil
	}
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // else keys never expire
	client, err := Dial(ctx, server)
	if err != nil {
		server.Close()
		return nil, nil, err
	}
	return client, func() {
		client.Close()
		server.Close()
	}, nil
}

// Dial connects to a miniredis in this process, without a network.
func Dial(ctx context.Context, server *miniredis.Miniredis) (rueidis.Client, error) {
	return beequeue.Dial(ctx, "redis://miniredis", func(o *rueidis.ClientOption) {
		o.ForceSingleClient = true // it answers CLUSTER commands, but is no cluster
		o.AlwaysRESP2 = true       // with RESP3, it refuses commands on a connection that subscribes
		o.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
			return server.Dial()
		}
	})
}
