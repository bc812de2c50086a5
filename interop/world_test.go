package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what has to come: much longer than it
// takes, for machines with other things to do.
const patience = time.Minute

// world is what one test function has to itself: a Redis server, a client of it,
// and a Node process.
type world struct {
	addr   string
	client rueidis.Client
	node   *node
}

func newWorld(t *testing.T, nodeFlags ...string) *world {
	t.Helper()
	t.Parallel()
	needNode(t)
	return joinWorld(t, redistest.Start(t).Addr, nodeFlags...)
}

// joinWorld makes a world of a server that runs already.
func joinWorld(t *testing.T, addr string, nodeFlags ...string) *world {
	t.Helper()
	client, err := beequeue.Dial(context.Background(), "redis://"+addr)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return &world{addr: addr, client: client, node: startNode(t, nodeFlags...)}
}

// missing skips a test that cannot run here. Where tests have to run, it fails.
func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func needNode(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "node is not installed: install Node 20 or later, then run `npm ci` in interop/")
	}
	if _, err := os.Stat(filepath.Join("node_modules", "bee-queue", "package.json")); err != nil {
		missing(t, "bee-queue is not installed: run `npm ci` in interop/")
	}
}

// site is one queue, which Go and Node name so that their keys are the same.
type site struct {
	*world
	queue    string          // Go's name
	config   beequeue.Config // Go's settings that make the keys
	nodeName string
	prefix   string // Node's; "" for its default
	keys     string // what all keys begin with
}

// eachLayout runs f for each of the ways in which Go and Node can share keys.
func (w *world) eachLayout(t *testing.T, queue string, f func(t *testing.T, s *site)) {
	t.Helper()
	w.eachTagged(t, queue, f)
	w.at(t, "plain", site{
		queue: queue, config: beequeue.Config{PlainKeys: true},
		nodeName: queue, keys: "bq:" + queue + ":",
	}, f)
}

// eachTagged runs f for those of the ways that suit a cluster.
func (w *world) eachTagged(t *testing.T, queue string, f func(t *testing.T, s *site)) {
	t.Helper()
	w.at(t, "tagged name", site{
		queue: queue, nodeName: "{" + queue + "}", keys: "bq:{" + queue + "}:",
	}, f)
	w.at(t, "tagged prefix", site{
		queue: queue, config: beequeue.Config{Prefix: "{bq}"},
		nodeName: queue, prefix: "{bq}", keys: "{bq}:" + queue + ":",
	}, f)
}

func (w *world) at(t *testing.T, layout string, s site, f func(t *testing.T, s *site)) {
	t.Helper()
	s.world = w
	t.Run(layout, func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() { s.checkPlaces(t) })
		f(t, &s)
	})
}

// do runs a Redis command on one of the queue's keys.
func (s *site) do(command, key string, args ...string) rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.client.Do(ctx, s.client.B().Arbitrary(command).Keys(s.keys+key).Args(args...).Build())
}

// record is a job's record as it is in Redis, each part in the text it has there.
type record struct {
	Data     json.RawMessage            `json:"data"`
	Options  map[string]json.RawMessage `json:"options"`
	Status   string                     `json:"status"`
	Progress json.RawMessage            `json:"progress"`
	Result   json.RawMessage            `json:"result"`
}

func (s *site) rawRecord(t *testing.T, id string) string {
	t.Helper()
	text, err := s.do("HGET", "jobs", id).ToString()
	require.NoError(t, err, "record of job %s", id)
	return text
}

func (s *site) record(t *testing.T, id string) record {
	t.Helper()
	var r record
	require.NoError(t, json.Unmarshal([]byte(s.rawRecord(t, id)), &r))
	return r
}

// places lists where each job is.
func (s *site) places(t *testing.T) map[string][]string {
	t.Helper()
	places := make(map[string][]string)
	for _, list := range []struct{ key, command string }{
		{"waiting", "LRANGE"}, {"active", "LRANGE"}, {"delayed", "ZRANGE"}, {"succeeded", "SMEMBERS"}, {"failed", "SMEMBERS"},
	} {
		var page []string
		if list.command != "SMEMBERS" {
			page = []string{"0", "-1"}
		}
		ids, err := s.do(list.command, list.key, page...).AsStrSlice()
		require.NoError(t, err)
		for _, id := range ids {
			places[id] = append(places[id], list.key)
		}
	}
	return places
}

// checkPlaces asserts what holds whenever nobody is at work: each job has a
// record and is in exactly one place.
func (s *site) checkPlaces(t *testing.T) {
	t.Helper()
	ids, err := s.do("HKEYS", "jobs").AsStrSlice()
	require.NoError(t, err)
	places := s.places(t)
	for _, id := range ids {
		assert.Len(t, places[id], 1, "job %s is in %v", id, places[id])
		delete(places, id)
	}
	assert.Empty(t, places, "ids without a record")
}

// awaitPlace waits until a job is in a place and nowhere else.
func (s *site) awaitPlace(t *testing.T, id, place string) {
	t.Helper()
	require.Eventually(t, func() bool {
		at := s.places(t)[id]
		return len(at) == 1 && at[0] == place
	}, patience, 10*time.Millisecond, "job %s does not come to %s", id, place)
}

// subscribers is how many listen to a channel of the queue.
func (s *site) subscribers(t *testing.T, channel string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	reply, err := s.client.Do(ctx, s.client.B().PubsubNumsub().Channel(s.keys+channel).Build()).AsIntMap()
	require.NoError(t, err)
	return reply[s.keys+channel]
}

// awaitSubscribers waits until a channel of the queue has n subscribers.
func (s *site) awaitSubscribers(t *testing.T, channel string, n int64) {
	t.Helper()
	require.Eventually(t, func() bool { return s.subscribers(t, channel) == n },
		patience, 10*time.Millisecond, "%s does not have %d subscribers", channel, n)
}

// awaitStallChecks waits until n more checks for stalled jobs have been made, by
// Go or by Node. Each sets the key stallBlock anew.
func (s *site) awaitStallChecks(t *testing.T, n int) {
	t.Helper()
	var last int64
	seen := -1 // the check before does not count
	require.Eventually(t, func() bool {
		left, err := s.do("PTTL", "stallBlock").AsInt64()
		if err == nil && left > last {
			seen++
		}
		last = left
		return seen >= n
	}, patience, 5*time.Millisecond, "%d stall checks", n)
}

// redisSettings are Node's for the world's server.
func (w *world) redisSettings(t *testing.T) map[string]any {
	t.Helper()
	host, text, err := net.SplitHostPort(w.addr)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	return map[string]any{"host": host, "port": port}
}

// text gives a value as JSON.
func text(t *testing.T, value any) string {
	t.Helper()
	b, err := json.Marshal(value)
	require.NoError(t, err)
	return string(b)
}

// receive takes the next value of a channel.
func receive[T any](t *testing.T, c <-chan T, what string, args ...any) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.Fail(t, "nothing came: "+fmt.Sprintf(what, args...))
		panic("unreachable")
	}
}

// replaceEscape undoes one of encoding/json's escapes for HTML.
func replaceEscape(s string, r rune) string {
	return strings.ReplaceAll(s, fmt.Sprintf(`\u%04x`, r), string(r))
}
