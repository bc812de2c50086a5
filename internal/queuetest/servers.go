package queuetest

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

// A Server is a kind of Redis that the contract holds on.
type Server struct {
	Name    string
	Masters int // of a cluster, where keys have slots; 0 for other kinds

	// Start starts a real server; nil for miniredis.
	Start func(tb testing.TB) (url string, nodes []*redistest.Server)
	// Own is the miniredis to use, instead of a new one for each client.
	Own *miniredis.Miniredis
	// Nodes are clients that speak to one node each, once the server was started.
	Nodes []rueidis.Client

	listsClients bool // CLIENT LIST shows all connections

	mu      sync.Mutex
	url     string // once the server was started
	cleanup cleanup
}

// Servers are all kinds of Redis. The first test that needs a real server starts it. It
// serves the other tests of the package too, until Main stops it.
var Servers = []*Server{
	{Name: "miniredis"},
	{
		Name: "redis", listsClients: true,
		Start: func(tb testing.TB) (string, []*redistest.Server) {
			s := redistest.Start(tb)
			return s.URL(), []*redistest.Server{s}
		},
	},
	{
		Name: "clusternode", listsClients: true, Masters: 1,
		Start: func(tb testing.TB) (string, []*redistest.Server) {
			s := redistest.StartClusterNode(tb)
			return s.URL(), []*redistest.Server{s}
		},
	},
	{
		Name: "cluster", Masters: 3,
		Start: func(tb testing.TB) (string, []*redistest.Server) {
			c := redistest.StartCluster(tb, redistest.Steady)
			return c.URL(), c.Servers
		},
	},
}

// Mini is for tests that need only one server, and no real one.
var Mini = Servers[0]

// Each runs a test on every kind of server; with -short, on miniredis alone.
func Each(t *testing.T, test func(t *testing.T, s *Server)) {
	t.Helper()
	for _, s := range Servers {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// OnReal runs a test on one real server.
func OnReal(t *testing.T, test func(t *testing.T, s *Server)) {
	t.Helper()
	t.Run(Servers[1].Name, func(t *testing.T) {
		t.Parallel()
		test(t, Servers[1])
	})
}

// Dial gives a client, which the caller closes. Its connections have that name. Each
// miniredis is one test's own.
func (s *Server) Dial(t *testing.T, name string, options ...func(*rueidis.ClientOption)) rueidis.Client {
	t.Helper()
	all := []func(*rueidis.ClientOption){func(o *rueidis.ClientOption) { o.ClientName = name }}
	url := ""
	if s.Start == nil {
		m := s.Own
		if m == nil {
			m = miniredis.RunT(t)
		}
		m.ClockTTL(true)
		url = "redis://" + m.Addr()
		all = append(all, func(o *rueidis.ClientOption) { o.AlwaysRESP2, o.ForceSingleClient = true, true })
	} else {
		url = s.URL(t)
	}
	client, err := beequeue.Dial(context.Background(), url, append(all, options...)...)
	require.NoError(t, err)
	return client
}

// URL starts the server if it is not running yet, and gives its URL.
func (s *Server) URL(t *testing.T) string {
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
		s.url, nodes = s.Start(&s.cleanup)
		for _, node := range nodes {
			s.Nodes = append(s.Nodes, node.Client(&s.cleanup))
		}
	}
	return s.url
}

// A cleanup is a testing.TB that cleans up after all tests instead of after its own.
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
