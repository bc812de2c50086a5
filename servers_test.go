package beequeue_test

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// A server is a kind of Redis that the contract holds on.
type server struct {
	name         string
	masters      int  // more than 0: a cluster, where keys have slots
	listsClients bool // CLIENT LIST shows all connections

	start func(tb testing.TB) (url string, nodes []*redistest.Server) // nil for miniredis
	own   *miniredis.Miniredis                                        // to use, rather than a new one for each client

	mu      sync.Mutex
	url     string           // once it was started
	nodes   []rueidis.Client // likewise: one that speaks to each node alone
	cleanup cleanup
}

// servers are all there are. The real ones are started by the first test that
// needs them, serve all the others too, and are stopped by TestMain.
var servers = []*server{
	{name: "miniredis"},
	{
		name: "redis", listsClients: true,
		start: func(tb testing.TB) (string, []*redistest.Server) {
			s := redistest.Start(tb)
			return s.URL(), []*redistest.Server{s}
		},
	},
	{
		name: "clusternode", listsClients: true, masters: 1,
		start: func(tb testing.TB) (string, []*redistest.Server) {
			s := redistest.StartClusterNode(tb)
			return s.URL(), []*redistest.Server{s}
		},
	},
	{
		name: "cluster", masters: 3,
		start: func(tb testing.TB) (string, []*redistest.Server) {
			c := redistest.StartCluster(tb, redistest.Steady)
			return c.URL(), c.Servers
		},
	},
}

// mini is where tests run that need only one server, and no real one.
var mini = servers[0]

// each runs a test on every kind of server; with -short, on miniredis alone.
func each(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// onReal runs a test on one real server.
func onReal(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	t.Run(servers[1].name, func(t *testing.T) {
		t.Parallel()
		test(t, servers[1])
	})
}

// dial gives a client, which is the caller's to close. Each miniredis is one
// test's own.
func (s *server) dial(t *testing.T, name string, options ...func(*rueidis.ClientOption)) rueidis.Client {
	t.Helper()
	all := []func(*rueidis.ClientOption){func(o *rueidis.ClientOption) { o.ClientName = name }}
	url := ""
	if s.start == nil {
		m := s.own
		if m == nil {
			m = miniredis.RunT(t)
		}
		m.ClockTTL(true)
		url = "redis://" + m.Addr()
		all = append(all, func(o *rueidis.ClientOption) { o.AlwaysRESP2, o.ForceSingleClient = true, true })
	} else {
		url = s.running(t)
	}
	client, err := beequeue.Dial(context.Background(), url, append(all, options...)...)
	require.NoError(t, err)
	return client
}

// running starts the server if it is not running yet, and gives its URL.
func (s *server) running(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("a real redis-server takes too long to start for -short")
	}
	redistest.Available(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.url == "" {
		s.cleanup.TB = t
		var nodes []*redistest.Server
		s.url, nodes = s.start(&s.cleanup)
		for _, node := range nodes {
			s.nodes = append(s.nodes, node.Client(&s.cleanup))
		}
	}
	return s.url
}

// A cleanup is a test for what is cleaned up after all tests.
type cleanup struct {
	testing.TB
	last []func()
}

func (c *cleanup) Cleanup(f func()) { c.last = append(c.last, f) }

func (c *cleanup) TempDir() string {
	c.Helper()
	dir, err := os.MkdirTemp("", "beequeue")
	require.NoError(c.TB, err)
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (c *cleanup) run() {
	for _, f := range slices.Backward(c.last) {
		f()
	}
}
