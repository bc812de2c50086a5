package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// node is a running peer.js.
type node struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	gone   chan struct{} // closed when the process has ended

	mu     sync.Mutex
	last   int // the last number given to a command or queue
	calls  map[int]chan answer
	events []event
	grown  chan struct{} // closed when events grow
}

type answer struct {
	Seq   int             `json:"seq"`
	Value json.RawMessage `json:"value"`
	Error string          `json:"error"`
}

// event is something that peer.js told unasked.
type event struct {
	Queue string          `json:"queue"`
	From  string          `json:"from"`
	Event string          `json:"event"`
	ID    string          `json:"id"`
	Data  json.RawMessage `json:"data"`
}

// text gives the data of an event that is a string.
func (e event) text() string {
	var s string
	_ = json.Unmarshal(e.Data, &s)
	return s
}

func startNode(t *testing.T, flags ...string) *node {
	t.Helper()
	n := &node{
		cmd:   exec.Command("node", append(flags, "peer.js")...),
		gone:  make(chan struct{}),
		calls: make(map[int]chan answer),
		grown: make(chan struct{}),
	}
	n.cmd.Stderr = &n.stderr
	var err error
	n.stdin, err = n.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := n.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, n.cmd.Start())
	go n.read(stdout)
	t.Cleanup(func() {
		_ = n.stdin.Close()
		select {
		case <-n.gone:
		case <-time.After(patience):
			n.kill(t)
		}
		assert.Empty(t, n.stderr.String(), "stderr of Node")
	})
	return n
}

// read takes what the process writes until it ends.
func (n *node) read(stdout io.Reader) {
	defer close(n.gone)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		n.take(lines.Bytes())
	}
	_ = n.cmd.Wait()
}

func (n *node) take(line []byte) {
	var a answer
	var e event
	if json.Unmarshal(line, &a) != nil || json.Unmarshal(line, &e) != nil {
		e = event{From: "peer", Event: "garbage", Data: slices.Clone(line)}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Seq != 0 {
		n.calls[a.Seq] <- a
		delete(n.calls, a.Seq)
		return
	}
	n.events = append(n.events, e)
	close(n.grown)
	n.grown = make(chan struct{})
}

// call has the process do a command, and returns the value it answers with.
func (n *node) call(t *testing.T, command string, args map[string]any) json.RawMessage {
	t.Helper()
	n.mu.Lock()
	n.last++
	seq := n.last
	done := make(chan answer, 1)
	n.calls[seq] = done
	line := map[string]any{"seq": seq, "do": command}
	maps.Copy(line, args)
	_, err := n.stdin.Write([]byte(text(t, line) + "\n"))
	n.mu.Unlock()
	require.NoError(t, err)
	select {
	case a := <-done:
		require.Empty(t, a.Error, "Node: %s", command)
		return a.Value
	case <-n.gone:
		require.Fail(t, "Node has ended", n.stderr.String())
	case <-time.After(patience):
		require.Fail(t, "Node does not answer", command)
	}
	return nil
}

// sync returns when all that the process has told is here.
func (n *node) sync(t *testing.T) {
	t.Helper()
	n.call(t, "ping", nil)
}

// kill ends the process as a crash would.
func (n *node) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, n.cmd.Process.Kill())
	receive(t, n.gone, "the end of Node")
}

// A nodeQueue is a queue in the Node process.
type nodeQueue struct {
	node   *node
	handle string
	closed bool
}

// settings are Bee-Queue's, by its names.
type settings map[string]any

// nodeQueue makes the queue in the world's Node process.
func (s *site) nodeQueue(t *testing.T, change settings) *nodeQueue {
	t.Helper()
	return s.nodeQueueIn(t, s.node, change)
}

func (s *site) nodeQueueIn(t *testing.T, n *node, change settings) *nodeQueue {
	t.Helper()
	all := settings{"redis": s.redisSettings(t)}
	if s.prefix != "" {
		all["prefix"] = s.prefix
	}
	maps.Copy(all, change)
	n.mu.Lock()
	n.last++
	q := &nodeQueue{node: n, handle: "q" + strconv.Itoa(n.last)}
	n.mu.Unlock()
	reply := q.call(t, "queue", map[string]any{
		"name": s.nodeName, "settings": all, "strategies": map[string]any{"linear": 5},
	})
	assert.JSONEq(t, text(t, map[string]string{"keyPrefix": s.keys}), string(reply))
	t.Cleanup(func() {
		q.close(t)
		for _, e := range q.all("queue", "error") {
			assert.Fail(t, "error of a Node queue", e.text())
		}
	})
	return q
}

func (q *nodeQueue) call(t *testing.T, command string, args map[string]any) json.RawMessage {
	t.Helper()
	line := map[string]any{"queue": q.handle}
	maps.Copy(line, args)
	return q.node.call(t, command, line)
}

// close closes the queue. A handler that hangs is given up on.
func (q *nodeQueue) close(t *testing.T) {
	t.Helper()
	select {
	case <-q.node.gone:
		return
	default:
	}
	if !q.closed {
		q.closed = true
		q.call(t, "close", map[string]any{"timeout": 1000})
	}
}

// nodeJob is a job for Node to save.
type nodeJob struct {
	Data       any            `json:"data,omitempty"`
	ID         string         `json:"id,omitempty"`
	Retries    int            `json:"retries,omitempty"`
	Timeout    int64          `json:"timeout,omitempty"`
	DelayUntil int64          `json:"delayUntil,omitempty"`
	Backoff    *nodeBackoff   `json:"backoff,omitempty"`
	Options    map[string]any `json:"options,omitempty"` // others, set directly
}

type nodeBackoff struct {
	Strategy string `json:"strategy"`
	Delay    int64  `json:"delay,omitempty"`
}

// save saves a job and listens to its events. The id is "" for a duplicate.
func (q *nodeQueue) save(t *testing.T, job nodeJob) string {
	t.Helper()
	return decode[string](t, q.call(t, "save", map[string]any{"job": job, "watch": true}))
}

func (q *nodeQueue) saveAll(t *testing.T, jobs []nodeJob) []string {
	t.Helper()
	return decode[[]string](t, q.call(t, "saveAll", map[string]any{"jobs": jobs}))
}

// obey is the data of a job for the handler of that name.
type obey struct {
	Fail   string `json:"fail,omitempty"`
	Result any    `json:"result,omitempty"`
}

// process starts a handler of one of peer.js's kinds.
func (q *nodeQueue) process(t *testing.T, concurrency int, kind string, how map[string]any) {
	t.Helper()
	handler := map[string]any{"kind": kind}
	maps.Copy(handler, how)
	q.call(t, "process", map[string]any{"concurrency": concurrency, "handler": handler})
}

// readJob is a job as Node reads it.
type readJob struct {
	ID       string          `json:"id"`
	Data     json.RawMessage `json:"data"`
	Options  nodeOptions     `json:"options"`
	Status   string          `json:"status"`
	Progress json.RawMessage `json:"progress"`
}

type nodeOptions struct {
	Timestamp   int64        `json:"timestamp"`
	Stacktraces []any        `json:"stacktraces"`
	Retries     int          `json:"retries"`
	Timeout     int64        `json:"timeout"`
	Delay       int64        `json:"delay"`
	Backoff     *nodeBackoff `json:"backoff"`
}

// job fetches a job and listens to its events; nil if there is none.
func (q *nodeQueue) job(t *testing.T, id string) *readJob {
	t.Helper()
	return decode[*readJob](t, q.call(t, "job", map[string]any{"id": id, "watch": true}))
}

func (q *nodeQueue) do(t *testing.T, command, id string) {
	t.Helper()
	q.call(t, command, map[string]any{"id": id})
}

// find gives the events of a kind so far, of one job unless id is "".
func (n *node) find(queue, from, name, id string) ([]event, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []event
	for _, e := range n.events {
		if e.Queue == queue && e.From == from && e.Event == name && (id == "" || e.ID == id) {
			found = append(found, e)
		}
	}
	return found, n.grown
}

// all gives the events of a kind so far.
func (q *nodeQueue) all(from, name string) []event {
	found, _ := q.node.find(q.handle, from, name, "")
	return found
}

// await waits for an event of a job.
func (q *nodeQueue) await(t *testing.T, from, name, id string) event {
	t.Helper()
	return q.awaitSome(t, 1, from, name, id)[0]
}

// awaitSome waits until an event has come a number of times.
func (q *nodeQueue) awaitSome(t *testing.T, n int, from, name, id string) []event {
	t.Helper()
	deadline := time.After(patience)
	for {
		found, grown := q.node.find(q.handle, from, name, id)
		if len(found) >= n {
			return found
		}
		select {
		case <-grown:
		case <-q.node.gone:
			require.Fail(t, "Node has ended", q.node.stderr.String())
		case <-deadline:
			require.Fail(t, "event does not come", "%s %q of job %q: %d of %d", from, name, id, len(found), n)
		}
	}
}

// history lists what was heard of a job, from one kind of listener, in order.
func (q *nodeQueue) history(from, id string) []string {
	q.node.mu.Lock()
	defer q.node.mu.Unlock()
	var names []string
	for _, e := range q.node.events {
		if e.Queue == q.handle && e.From == from && e.ID == id {
			names = append(names, e.Event+" "+string(e.Data))
		}
	}
	return names
}

func decode[T any](t *testing.T, raw json.RawMessage) T {
	t.Helper()
	var v T
	if len(raw) > 0 {
		require.NoError(t, json.Unmarshal(raw, &v))
	}
	return v
}
