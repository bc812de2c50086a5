package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// marker is what the proxy lets the server echo, to see that all before it was
// executed.
const marker = "redistest-executed-7c1e5b0f"

// Proxy stands between clients and one server and cuts connections at chosen
// moments. It suits a single server; nodes of a cluster tell clients their own
// addresses, past the proxy.
type Proxy struct {
	Addr string // host:port to connect to

	target string
	wg     sync.WaitGroup // the accept loop, and two for each link

	mu       sync.Mutex
	listener net.Listener // nil while blocked and after the test
	links    map[*link]struct{}
	drops    int // replies still to lose
	match    func(request []byte) bool
	dropped  int
}

// link is one client's connection and the connection made for it.
type link struct {
	client, server net.Conn
	dropping       atomic.Bool // no reply may reach the client any more
}

func (l *link) cut() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// StartProxy starts a proxy in front of the address target. It is stopped when the
// test ends.
func StartProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	p := &Proxy{target: target, links: map[*link]struct{}{}}
	tb.Cleanup(func() {
		p.Block()
		p.wg.Wait()
	})
	var err error
	for range startAttempts {
		p.Addr = address(freePort(tb))
		if err = p.listen(); err == nil {
			return p
		}
	}
	tb.Fatalf("redistest: start a proxy: %v", err)
	return nil
}

// URL returns the proxy's address in the form that rueidis.ParseURL reads.
func (p *Proxy) URL() string { return "redis://" + p.Addr }

// CutAll closes all connections. Clients may connect again at once.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// Block closes all connections and refuses new ones until Unblock.
func (p *Proxy) Block() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.CutAll()
}

// Unblock takes connections again, at the same address.
func (p *Proxy) Unblock(tb testing.TB) {
	tb.Helper()
	waitFor(tb, "the proxy's port "+p.Addr, nil, p.listen)
}

// DropReplies loses the replies to the next n requests that match: each is passed
// on, and when the server has executed it, the connection is closed without its
// reply. A request is one command in the protocol's bytes, such as
// "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n"; match nil takes every request. Other requests
// that were in flight on the same connection lose their replies too, and those the
// client sent after it are not executed. It replaces an earlier DropReplies; it
// does not suit commands between MULTI and EXEC.
func (p *Proxy) DropReplies(n int, match func(request []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops, p.match = n, match
}

// Dropped returns how many requests were executed and lost their reply because of
// DropReplies.
func (p *Proxy) Dropped() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

func (p *Proxy) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", p.Addr)
	if err != nil {
		return err
	}
	p.listener = listener
	p.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(listener, client) })
		}
	})
	return nil
}

func (p *Proxy) serve(listener net.Listener, client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server}
	defer l.cut()
	if !p.add(l, listener) {
		return
	}
	defer p.remove(l)

	replied := make(chan struct{})
	p.wg.Go(func() {
		defer close(replied)
		defer l.cut()
		p.passReplies(l)
	})
	if err := p.passRequests(l); err != nil {
		l.cut()
	}
	<-replied
}

// add refuses a connection that was accepted before the proxy was blocked.
func (p *Proxy) add(l *link, listener net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != listener {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// passRequests returns nil after a request whose reply is to be lost: then
// passReplies ends the link.
func (p *Proxy) passRequests(l *link) error {
	reader, writer := bufio.NewReader(l.client), bufio.NewWriter(l.server)
	for {
		request, err := readRequest(reader)
		if err != nil {
			return err
		}
		drop := p.takeDrop(request)
		if drop {
			l.dropping.Store(true)
			request = fmt.Appendf(request, "*2\r\n$4\r\nPING\r\n$%d\r\n%s\r\n", len(marker), marker)
		}
		if _, err := writer.Write(request); err != nil {
			return err
		}
		if drop || reader.Buffered() == 0 {
			if err := writer.Flush(); err != nil {
				return err
			}
		}
		if drop {
			return nil
		}
	}
}

func (p *Proxy) takeDrop(request []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drops == 0 || p.match != nil && !p.match(request) {
		return false
	}
	p.drops--
	return true
}

func (p *Proxy) passReplies(l *link) {
	buffer := make([]byte, 16<<10)
	var lost []byte // the end of what the client does not get
	for {
		n, err := l.server.Read(buffer)
		if err != nil {
			return
		}
		if !l.dropping.Load() {
			if _, err := l.client.Write(buffer[:n]); err != nil {
				return
			}
			continue
		}
		lost = append(lost, buffer[:n]...)
		if bytes.Contains(lost, []byte(marker)) {
			p.mu.Lock()
			p.dropped++
			p.mu.Unlock()
			return
		}
		lost = lost[max(0, len(lost)-len(marker)):]
	}
}

// readRequest returns the bytes of one command: an array of bulk strings, which is
// what clients send, or else one line.
func readRequest(reader *bufio.Reader) ([]byte, error) {
	request, err := reader.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	if request[0] != '*' {
		return request, nil
	}
	count, err := lengthOf(request)
	if err != nil {
		return nil, err
	}
	for range count {
		header, err := reader.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		length, err := lengthOf(header)
		if err != nil {
			return nil, err
		}
		request = append(request, header...)
		start := len(request)
		request = append(request, make([]byte, length+len("\r\n"))...)
		if _, err := io.ReadFull(reader, request[start:]); err != nil {
			return nil, err
		}
	}
	return request, nil
}

// lengthOf reads "*3\r\n" or "$5\r\n".
func lengthOf(header []byte) (int, error) {
	length, err := strconv.Atoi(string(bytes.TrimSpace(header[1:])))
	if err == nil && length < 0 {
		err = errors.New("negative length in a request")
	}
	return length, err
}
