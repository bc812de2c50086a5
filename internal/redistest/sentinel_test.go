package redistest

import (
	"testing"
)

// TestSentinel goes through one set of servers in order: failovers take seconds.
func TestSentinel(t *testing.T) {
	t.Parallel()
	sentinel := StartSentinel(t, "--appendonly", "yes")
	first, second := sentinel.Servers[0], sentinel.Servers[1]
	client := dial(t, sentinel.URL())
	if err := client.Do(t.Context(), client.B().Set().Key("k").Value("v").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if got := sentinel.Master(t); got != first {
		t.Fatalf("the master is %s, want %s", got.Addr, first.Addr)
	}
	wantString(t, first, "v", "GET", "k")
	waitFor(t, "the replica to copy the key", sentinel.Servers, func() error {
		_, err := second.text("GET", "k")
		return err
	})

	first.Kill()
	if got := sentinel.Master(t); got != second {
		t.Fatalf("after Kill the master is %s, want %s", got.Addr, second.Addr)
	}
	wantString(t, second, "v", "GET", "k")
	first.Restart(t)

	sentinel.Failover(t) // waits until the old master replicates
	if got := sentinel.Master(t); got != first {
		t.Fatalf("after Failover the master is %s, want %s", got.Addr, first.Addr)
	}
	wantString(t, first, "v", "GET", "k")
}
