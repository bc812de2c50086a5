package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	host = "127.0.0.1"

	// waitTimeout is for things that happen within seconds on an idle machine. A
	// Sentinel that was starved does nothing for half a minute.
	waitTimeout    = 3 * time.Minute
	waitInterval   = 20 * time.Millisecond
	commandTimeout = 20 * time.Second

	// A node of a cluster also listens on its port + busOffset. Both ports stay
	// below 32768, where Linux, macOS and Windows start to hand out ports for
	// outgoing connections: so nothing takes the port of a server that is down.
	firstPort = 10000
	lastPort  = 21999
	busOffset = 10000
)

// Available skips the test when there is no redis-server on the PATH. With the
// environment variable CI=true it fails the test instead, so that a build cannot
// pass by having skipped it. Every function that starts a server calls it.
func Available(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		unavailable(tb, "redis-server on the PATH", err)
	}
}

func unavailable(tb testing.TB, what string, err error) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("redistest: CI must have %s: %v", what, err)
	}
	tb.Skipf("redistest: needs %s: %v", what, err)
}

// waitFor polls check until it returns nil. After waitTimeout it fails the test
// with check's last error and the ends of the servers' logs.
func waitFor(tb testing.TB, what string, servers []*Server, check func() error) {
	tb.Helper()
	deadline := time.NewTimer(waitTimeout)
	defer deadline.Stop()
	ticker := time.NewTicker(waitInterval)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			tb.Fatalf("redistest: gave up after %v waiting for %s: %v%s", waitTimeout, what, err, logTails(servers))
		case <-ticker.C:
		}
	}
}

// waitForFailover asks for a failover until done returns nil: at once, and again
// when Redis has given that one up. An ask that fails is repeated at once.
func waitForFailover(tb testing.TB, what string, servers []*Server, ask, done func() error) {
	tb.Helper()
	const givenUp = 8 * time.Second // Redis does so after five
	var asked time.Time
	waitFor(tb, what, servers, func() error {
		err := done()
		if err == nil || time.Since(asked) < givenUp {
			return err
		}
		if err := ask(); err != nil {
			return err
		}
		asked = time.Now()
		return err
	})
}

func logTails(servers []*Server) string {
	var tails strings.Builder
	for _, server := range servers {
		fmt.Fprintf(&tails, "\n--- log of %s ---\n%s", server.Addr, server.logTail())
	}
	return tails.String()
}

// freePort returns a port that is free, as is the bus port that goes with it.
// Another process may still take it: callers try again with another one.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if portIsFree(port) && portIsFree(port+busOffset) {
			return port
		}
	}
	tb.Fatalf("redistest: found no free port from %d to %d", firstPort, lastPort)
	return 0
}

func portIsFree(port int) bool {
	listener, err := net.Listen("tcp", address(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

func address(port int) string {
	return net.JoinHostPort(host, strconv.Itoa(port))
}
