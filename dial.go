package beequeue

import (
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// Dial connects to Redis with options that suit a queue: small buffers, no
// client-side cache, one pipelined connection for each server, and a check of
// Sentinel's word every 5 s. The URL is rueidis's: redis://host:6379/0 for one
// server or a cluster (more nodes as ?addr=host:port), rediss:// for TLS,
// ?master_set=name for Sentinel, unix:// for a socket. Each option func may
// change the options before they are used. The caller closes the client.
//
// Redis has to answer when Dial is called; afterwards it may come and go. Any
// other rueidis.Client works as well; Dial is a convenience.
func Dial(url string, options ...func(*rueidis.ClientOption)) (rueidis.Client, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil {
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
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, fmt.Errorf("beequeue: dial: %w", err)
	}
	return client, nil
}
