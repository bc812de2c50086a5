package redistest

import (
	"bufio"
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/rueidis"
)

func isIncrement(request []byte) bool { return bytes.Contains(request, []byte("INCR")) }

func TestProxyPassesRequests(t *testing.T) {
	t.Parallel()
	server := Start(t)
	proxy := StartProxy(t, server.Addr)
	client := dial(t, proxy.URL())
	large := strings.Repeat("x\r\n*1", 20_000)
	if err := client.Do(t.Context(), client.B().Set().Key("k").Value(large).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	wantString(t, server, large, "GET", "k")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				if err := increment(t.Context(), client); err != nil {
					t.Errorf("INCR: %v", err)
				}
				got, err := client.Do(t.Context(), client.B().Get().Key("k").Build()).ToString()
				if err != nil || got != large {
					t.Errorf("GET: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	group.Wait()
	wantString(t, server, "400", "GET", "n")
}

func TestProxyLosesReplyOfExecutedRequest(t *testing.T) {
	t.Parallel()
	server := Start(t)
	proxy := StartProxy(t, server.Addr)
	client := dial(t, proxy.URL())
	const lost = 3
	proxy.DropReplies(lost, isIncrement)
	for i := range lost {
		if err := increment(t.Context(), client); err == nil || strings.Contains(err.Error(), "dial") {
			t.Errorf("the reply should be lost: %v", err)
		}
		wantString(t, server, strconv.Itoa(i+1), "GET", "n")
		if got := proxy.Dropped(); got != i+1 {
			t.Errorf("Dropped is %d, want %d", got, i+1)
		}
		// What does not match goes through, on a new connection.
		got, err := client.Do(t.Context(), client.B().Get().Key("n").Build()).AsInt64()
		if err != nil || got != int64(i+1) {
			t.Errorf("GET: %d, %v", got, err)
		}
	}
	if err := increment(t.Context(), client); err != nil {
		t.Errorf("the mode should be over: %v", err)
	}
	wantString(t, server, strconv.Itoa(lost+1), "GET", "n")
}

func TestProxyWaitsForBlockedRequest(t *testing.T) {
	t.Parallel()
	server := Start(t)
	proxy := StartProxy(t, server.Addr)
	client := dial(t, proxy.URL())
	proxy.DropReplies(1, func(request []byte) bool { return bytes.Contains(request, []byte("BLPOP")) })
	popped := make(chan error, 1)
	go func() {
		popped <- client.Do(t.Context(), client.B().Blpop().Key("list").Timeout(30).Build()).Error()
	}()
	waitFor(t, "a blocked client", []*Server{server}, func() error {
		select {
		case err := <-popped:
			t.Fatalf("BLPOP ended early: %v", err)
		default:
		}
		info, err := server.text("INFO", "clients")
		if err == nil && infoField(info, "blocked_clients") != "1" {
			err = context.DeadlineExceeded
		}
		return err
	})
	server.Do(t, "RPUSH", "list", "element")
	if err := <-popped; err == nil {
		t.Error("the reply was not lost")
	}
	message := server.Do(t, "LLEN", "list")
	if length, err := message.AsInt64(); err != nil || length != 0 || proxy.Dropped() != 1 {
		t.Errorf("the list has %d elements (%v), %d replies were lost", length, err, proxy.Dropped())
	}
}

func TestProxyCutAll(t *testing.T) {
	t.Parallel()
	server := Start(t)
	proxy := StartProxy(t, server.Addr)
	client := dial(t, proxy.URL())
	dedicated, release := client.Dedicate()
	defer release()
	broken := dedicated.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
	if err := dedicated.Do(t.Context(), dedicated.B().Ping().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	proxy.CutAll()
	if err := <-broken; err == nil {
		t.Error("the connection was not cut")
	}
	if err := dial(t, proxy.URL()).Do(t.Context(), client.B().Ping().Build()).Error(); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

func TestProxyBlockAndUnblock(t *testing.T) {
	t.Parallel()
	server := Start(t)
	proxy := StartProxy(t, server.Addr)
	client := dial(t, proxy.URL())
	if err := increment(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	proxy.Block()
	proxy.Block() // nothing left to do
	for range 5 {
		if err := increment(t.Context(), client); err == nil {
			t.Error("a request got through")
		}
	}
	if !portIsFree(atoi(t, proxy.Addr[strings.LastIndexByte(proxy.Addr, ':')+1:])) {
		t.Error("the proxy still listens")
	}
	wantString(t, server, "1", "GET", "n")
	proxy.Unblock(t)
	proxy.Unblock(t) // nothing left to do
	waitFor(t, "the client to connect again", []*Server{server}, func() error { return increment(t.Context(), client) })
	wantString(t, server, "2", "GET", "n")
}

func TestProxyWithoutServer(t *testing.T) {
	t.Parallel()
	server := Start(t)
	proxy := StartProxy(t, server.Addr)
	client := dial(t, proxy.URL())
	server.Kill()
	if err := increment(t.Context(), client); err == nil {
		t.Error("a request got through")
	}
	server.Restart(t)
	waitFor(t, "the client to connect again", []*Server{server}, func() error { return increment(t.Context(), client) })
}

func TestReadRequest(t *testing.T) {
	t.Parallel()
	requests := []string{"*2\r\n$4\r\nPING\r\n$4\r\n\r\n*1\r\n", "PING\r\n", "*0\r\n", "*1\r\n$0\r\n\r\n"}
	reader := bufio.NewReader(strings.NewReader(strings.Join(requests, "")))
	for _, want := range requests {
		if got, err := readRequest(reader); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	for _, broken := range []string{"", "*x\r\n", "*1\r\n$-1\r\n", "*1\r\n", "*1\r\n$5\r\nab"} {
		if got, err := readRequest(bufio.NewReader(strings.NewReader(broken))); err == nil {
			t.Errorf("%q was read as %q", broken, got)
		}
	}
}

func increment(ctx context.Context, client rueidis.Client) error {
	return client.Do(ctx, client.B().Incr().Key("n").Build()).Error()
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	number, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return number
}
