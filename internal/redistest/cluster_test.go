package redistest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/redis/rueidis"
)

func TestStartClusterNode(t *testing.T) {
	t.Parallel()
	server := StartClusterNode(t)
	server.Do(t, "MSET", "{q}a", "1", "{q}b", "2")
	if _, err := server.do("MSET", "a", "1", "b", "2"); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT") {
		t.Errorf("keys of two slots: %v", err)
	}
	client := dial(t, server.URL())
	if client.Mode() != rueidis.ClientModeCluster {
		t.Errorf("the client's mode is %v", client.Mode())
	}
}

// TestCluster goes through one cluster in order: starting one takes seconds.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := StartCluster(t, "--appendonly", "yes")
	client := dial(t, cluster.URL())
	const key = "{q}0"
	set := func(t *testing.T, key, value string) {
		t.Helper()
		if err := client.Do(t.Context(), client.B().Set().Key(key).Value(value).Build()).Error(); err != nil {
			t.Errorf("SET %s: %v", key, err)
		}
	}

	t.Run("layout", func(t *testing.T) {
		found := map[*Server]bool{}
		for i := range 100 {
			master := cluster.MasterFor(t, fmt.Sprint(i))
			if !found[master] {
				found[master], found[cluster.ReplicaOf(t, master)] = true, true
			}
		}
		if len(found) != 6 || len(cluster.Addrs()) != 6 {
			t.Errorf("found %d masters and replicas at %v", len(found), cluster.Addrs())
		}
	})

	t.Run("migrate", func(t *testing.T) {
		const count = 301
		for i := range count {
			set(t, fmt.Sprintf("{q}%d", i), "before")
		}
		source := cluster.MasterFor(t, key)
		paused := false
		cluster.MigrateSlot(t, key, func() {
			paused = true
			left, err := source.number("CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(cluster.slot(t, key)))
			if err != nil || left != count-count/2 {
				t.Errorf("%d keys are left halfway (%v)", left, err)
			}
			for i := range count {
				set(t, fmt.Sprintf("{q}%d", i), "during")
			}
			set(t, "{q}new", "during")
		})
		if !paused {
			t.Error("pause was not called")
		}
		target := cluster.MasterFor(t, key)
		if target == source {
			t.Error("the slot did not move")
		}
		for i := range count {
			wantString(t, target, "during", "GET", fmt.Sprintf("{q}%d", i))
		}
		wantString(t, target, "during", "GET", "{q}new")
		if _, err := source.do("GET", key); err == nil || !strings.HasPrefix(err.Error(), "MOVED") {
			t.Errorf("the old master answered %v", err)
		}
	})

	t.Run("migrate an empty slot and back", func(t *testing.T) {
		before := cluster.MasterFor(t, "empty")
		cluster.MigrateSlot(t, "empty", nil)
		if cluster.MasterFor(t, "empty") == before {
			t.Error("the slot did not move")
		}
		cluster.MigrateSlot(t, "empty", nil)
	})

	t.Run("failover and back", func(t *testing.T) {
		master := cluster.MasterFor(t, key)
		replica := cluster.ReplicaOf(t, master)
		for _, want := range []*Server{replica, master, replica} {
			cluster.Failover(t, key)
			if got := cluster.MasterFor(t, key); got != want {
				t.Errorf("the master is %s, want %s", got.Addr, want.Addr)
			}
			wantString(t, want, "during", "GET", key)
		}
	})

	t.Run("kill a master", func(t *testing.T) {
		other := cluster.otherMaster(t, cluster.MasterFor(t, key)) // see Failover
		key := ""
		for i := 0; key == ""; i++ {
			if candidate := fmt.Sprint(i); cluster.MasterFor(t, candidate) == other {
				key = candidate
			}
		}
		replica := cluster.ReplicaOf(t, other)
		set(t, key, "v")
		other.Do(t, "WAIT", "1", "5000")
		other.Kill()
		if got := cluster.MasterFor(t, key); got != replica {
			t.Errorf("the master is %s, want %s", got.Addr, replica.Addr)
		}
		wantString(t, replica, "v", "GET", key)
		other.Restart(t)
		if got := cluster.ReplicaOf(t, replica); got != other {
			t.Errorf("the replica is %s, want %s", got.Addr, other.Addr)
		}
	})
}

func TestParseNodes(t *testing.T) {
	t.Parallel()
	got, err := parseNodes(strings.Join([]string{
		"aa 127.0.0.1:1@10001 myself,master - 0 0 3 connected 0-5 7 [93-<-bb] [77->-bb]",
		"bb 127.0.0.1:2@10002,name slave,fail? aa 1 2 3 disconnected",
	}, "\n"))
	want := []node{
		{id: "aa", addr: "127.0.0.1:1", flags: []string{"myself", "master"}, epoch: 3, slots: []slotRange{{0, 5}, {7, 7}}},
		{id: "bb", addr: "127.0.0.1:2", flags: []string{"slave", "fail?"}, master: "aa", epoch: 3},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for slot, owned := range map[int64]bool{0: true, 5: true, 6: false, 7: true, 77: false} {
		if want[0].owns(slot) != owned {
			t.Errorf("owns(%d) is not %v", slot, owned)
		}
	}
	for _, line := range []string{"aa", "aa b c - 0 0 x connected", "aa b c - 0 0 1 connected x-1", "aa b c - 0 0 1 connected 1-x"} {
		if _, err := parseNodes(line); err == nil {
			t.Errorf("%q was read", line)
		}
	}
}
