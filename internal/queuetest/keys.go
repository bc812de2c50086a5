package queuetest

import (
	"context"
	"slices"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// Cmd sends a command whose first argument is the queue's key with that suffix.
func (f *Fixture) Cmd(command, suffix string, args ...string) rueidis.RedisResult {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return f.Client.Do(ctx, f.Client.B().Arbitrary(command).Keys(f.KeyPrefix()+suffix).Args(args...).Build())
}

// Must is Cmd for commands that may not fail.
func (f *Fixture) Must(command, suffix string, args ...string) {
	f.t.Helper()
	require.NoError(f.t, f.Cmd(command, suffix, args...).Error())
}

// List is Cmd for a reply of strings.
func (f *Fixture) List(command, suffix string, args ...string) []string {
	f.t.Helper()
	values, err := f.Cmd(command, suffix, args...).AsStrSlice()
	require.NoError(f.t, err)
	return values
}

// Number is Cmd for a reply that is an integer.
func (f *Fixture) Number(command, suffix string, args ...string) int64 {
	f.t.Helper()
	n, err := f.Cmd(command, suffix, args...).AsInt64()
	require.NoError(f.t, err)
	return n
}

// Text is Cmd for a reply that is text.
func (f *Fixture) Text(command, suffix string, args ...string) string {
	f.t.Helper()
	text, err := f.Cmd(command, suffix, args...).ToString()
	require.NoError(f.t, err)
	return text
}

// Keys gives all keys of the queue, whatever they are, on every node.
func (f *Fixture) Keys() (keys []string) {
	f.t.Helper()
	for _, node := range f.Client.Nodes() {
		for cursor := uint64(0); ; {
			page, err := node.Do(Bounded(f.t), node.B().Scan().Cursor(cursor).Match(f.KeyPrefix()+"*").Count(1000).Build()).AsScanEntry()
			if rueidis.IsRedisNil(err) {
				break
			}
			require.NoError(f.t, err)
			keys = append(keys, page.Elements...)
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return keys
}

// Record gives a job's record as Redis holds it.
func (f *Fixture) Record(id string) string {
	f.t.Helper()
	return f.Text("HGET", "jobs", id)
}

// Waiting gives the ids in waiting; the next job is the last.
func (f *Fixture) Waiting() []string { f.t.Helper(); return f.List("LRANGE", "waiting", "0", "-1") }

// Active gives the ids in active; the newest is the first.
func (f *Fixture) Active() []string { f.t.Helper(); return f.List("LRANGE", "active", "0", "-1") }

// Plant stores a record without the library, as another process might, and puts its id
// in waiting.
func (f *Fixture) Plant(id, record string) {
	f.t.Helper()
	f.Must("HSET", "jobs", id, record)
	f.Must("LPUSH", "waiting", id)
}

// Lose puts a job in active as if its worker had died. Without an owner, that is a
// worker of Node's; with an owner, one of ours.
func (f *Fixture) Lose(id, owner string) {
	f.t.Helper()
	f.Must("HSET", "jobs", id, `{"data":{},"options":{"timestamp":1,"stacktraces":[],"retries":2},"status":"created"}`)
	f.Must("LPUSH", "active", id)
	if owner != "" {
		f.Must("HSET", "owners", id, owner+"/7")
	}
}

// Places gives the keys that each id is in.
func (f *Fixture) Places() map[string][]string {
	f.t.Helper()
	found := make(map[string][]string)
	for _, place := range []struct {
		key, command string
		args         []string
	}{
		{"waiting", "LRANGE", []string{"0", "-1"}},
		{"active", "LRANGE", []string{"0", "-1"}},
		{"succeeded", "SMEMBERS", nil},
		{"failed", "SMEMBERS", nil},
		{"delayed", "ZRANGE", []string{"0", "-1"}},
	} {
		for _, id := range f.List(place.command, place.key, place.args...) {
			found[id] = append(found[id], place.key)
		}
	}
	return found
}

// RequireState checks that the job is in that state and in no other.
func (f *Fixture) RequireState(id string, want beequeue.State) {
	f.t.Helper()
	require.Equal(f.t, []string{string(want)}, f.Places()[id], "places of job %q", id)
}

// checkLayout fails the test if the queue's keys contradict each other.
func (f *Fixture) checkLayout() {
	f.t.Helper()
	places := f.Places()
	records := f.List("HKEYS", "jobs")
	for _, id := range records {
		assert.Len(f.t, places[id], 1, "job %q must be in one place, it is in %v", id, places[id])
	}
	slices.Sort(records)
	for id, in := range places {
		_, found := slices.BinarySearch(records, id)
		assert.True(f.t, found, "id %q in %v has no record", id, in)
	}
	assert.Empty(f.t, f.List("HKEYS", "owners"), "owners of runs that are over")
	for _, id := range f.List("HKEYS", "reasons") {
		assert.Equal(f.t, []string{"failed"}, places[id], "job %q has a reason to be in failed", id)
	}
}

// Subscribed waits until n subscriptions hear the queue's events.
func (f *Fixture) Subscribed(n int64) {
	f.t.Helper()
	Await(f.t, "the subscription", func() bool { return f.Subscriptions("events") >= n })
}

// Subscriptions counts the subscriptions to a channel of the queue's, on all nodes.
func (f *Fixture) Subscriptions(channel string) int64 {
	f.t.Helper()
	nodes := f.server.Nodes
	if nodes == nil {
		nodes = []rueidis.Client{f.Client}
	}
	var sum int64
	for _, node := range nodes {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		counts, err := node.Do(ctx, node.B().PubsubNumsub().Channel(f.KeyPrefix()+channel).Build()).ToArray()
		cancel()
		require.NoError(f.t, err)
		n, err := counts[1].AsInt64()
		require.NoError(f.t, err)
		sum += n
	}
	return sum
}

// Clients gives CLIENT LIST.
func (f *Fixture) Clients() string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	list, err := f.Client.Do(ctx, f.Client.B().ClientList().Build().SetSlot(f.KeyPrefix())).ToString()
	require.NoError(f.t, err)
	return list
}
