package redistest

import (
	"net"
	"sync"
	"testing"
)

// Gate stands between clients and one server and can hold the replies back: the
// server executes what it is asked, and the client hears nothing, as on a network
// that went dead without a word.
type Gate struct {
	Addr string // host:port to connect to

	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed while replies pass
	links map[*link]struct{}
}

// StartGate starts a gate in front of the address target, open. It is stopped when
// the test ends.
func StartGate(tb testing.TB, target string) *Gate {
	tb.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		tb.Fatalf("redistest: start a gate: %v", err)
	}
	g := &Gate{
		Addr:     listener.Addr().String(),
		listener: listener,
		open:     make(chan struct{}),
		links:    make(map[*link]struct{}),
	}
	close(g.open)
	tb.Cleanup(func() {
		_ = listener.Close()
		g.CutAll()
		g.wg.Wait()
	})
	g.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.serve(client, target) })
		}
	})
	return g
}

// URL returns the gate's address in the form that rueidis.ParseURL reads.
func (g *Gate) URL() string { return "redis://" + g.Addr }

// Hold keeps replies back, on connections to come too, until Release or CutAll.
func (g *Gate) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		g.open = make(chan struct{})
	default:
	}
}

// Release lets the replies that were held back pass, and all to come.
func (g *Gate) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.release()
}

func (g *Gate) release() {
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// CutAll closes all connections; replies that were held back are lost. New
// connections are passed through.
func (g *Gate) CutAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range g.links {
		l.dropping.Store(true)
		l.cut()
	}
	g.release()
}

func (g *Gate) serve(client net.Conn, target string) {
	server, err := net.Dial("tcp", target)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server}
	g.mu.Lock()
	g.links[l] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.links, l)
		g.mu.Unlock()
	}()
	replied := make(chan struct{})
	g.wg.Go(func() {
		defer close(replied)
		defer l.cut()
		g.passReplies(l)
	})
	_, _ = l.server.(*net.TCPConn).ReadFrom(l.client)
	l.cut()
	<-replied
}

func (g *Gate) passReplies(l *link) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := l.server.Read(buffer)
		if err != nil {
			return
		}
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		<-open
		if l.dropping.Load() {
			return
		}
		if _, err := l.client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
