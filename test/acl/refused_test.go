package acl_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// refusedToAll are the commands that no role may run: those that rule the server, and those
// on other queues.
var refusedToAll = [][]string{
	{"FLUSHALL"},
	{"FLUSHDB"},
	{"KEYS", "*"},
	{"SCAN", "0"},
	{"CONFIG", "GET", "*"},
	{"ACL", "LIST"},
	{"MONITOR"},
	{"SHUTDOWN"},
	{"SCRIPT", "FLUSH"},
	{"CLIENT", "LIST"},
	{"SELECT", "1"},
	{"GET", "other"},
	{"HGET", "bq:{other}:jobs", "1"},
	{"LLEN", "bq:{other}:waiting"},
	{"SUBSCRIBE", "bq:{other}:events"},
	{"EVAL", "return 1", "1", "bq:{other}:jobs"},
	{"EVAL", "return redis.call('HGET', 'bq:{other}:jobs', 1)", "0"},
	{"EVAL", "return redis.call('FLUSHALL')", "0"},
}

// refusedTo are the commands on the queue's own keys that a role may not run.
var refusedTo = map[string][][]string{
	"producer": {
		{"LRANGE", keyBase + "active", "0", "-1"},
		{"LPUSH", keyBase + "active", "1"},
		{"HSET", keyBase + "owners", "1", "me/1"},
		{"DEL", keyBase + "jobs"},
		{"EVAL", "return redis.call('LPUSH', KEYS[1], 1)", "1", keyBase + "active"},
	},
	"observer": {
		{"HSET", keyBase + "jobs", "1", "{}"},
		{"LPUSH", keyBase + "waiting", "1"},
		{"DEL", keyBase + "jobs"},
		{"PUBLISH", keyBase + "events", "{}"},
		{"EVAL", "return redis.call('DEL', KEYS[1])", "1", keyBase + "jobs"},
	},
}

// refusal matches Redis's error for a refused command, and for a refused command in a
// script.
var refusal = regexp.MustCompile("NOPERM|The user executing the script can't")

// tryRefused has a user do what its role does not include. A refused call leaves nothing
// behind.
func tryRefused(r *roleRun) {
	t := r.t
	client := r.dial()
	refused := func(err error, what ...string) {
		t.Helper()
		require.Error(t, err, what)
		require.Regexp(t, refusal, err.Error(), what)
	}
	for _, command := range append(refusedToAll, refusedTo[r.user]...) {
		refused(send(t, client, command), command...)
	}
	other, err := beequeue.New(client, "other", beequeue.Config{})
	require.NoError(t, err)
	defer r.all.CloseQueue(other)
	refused(other.CreateJob(1).Save(queuetest.Bounded(t)))
	_, err = other.Counts(queuetest.Bounded(t))
	refused(err)

	waits := r.all.Save("waits")
	r.all.Lose("runs", "a worker that is gone")
	r.all.Must("LPUSH", "waiting", "ghost")
	before := r.contents()
	q := r.open(client, beequeue.Config{})
	if r.user != "producer" {
		refused(q.CreateJob(1).Save(queuetest.Bounded(t)))
		refused(q.CreateJob(1).SetID("mine").Save(queuetest.Bounded(t)))
		refused(q.CreateJob(1).DelayUntil(time.Now().Add(time.Hour)).Save(queuetest.Bounded(t)))
	}
	if r.user != "worker" {
		_, err := q.CheckStalled(queuetest.Bounded(t))
		refused(err)
		r.requireIdle(client)
	}
	if r.user == "producer" || r.user == "observer" {
		refused(q.RemoveJob(queuetest.Bounded(t), waits.ID))
		job, err := q.GetJob(queuetest.Bounded(t), waits.ID)
		require.NoError(t, err)
		refused(job.Retry(queuetest.Bounded(t)))
		_, err = q.Repair(queuetest.Bounded(t))
		refused(err)
		_, err = q.Destroy(queuetest.Bounded(t))
		refused(err)
	}
	require.Equal(t, before, r.contents())
	client.Close()
}

// send sends a command on a connection of its own.
func send(t *testing.T, client rueidis.Client, command []string) error {
	t.Helper()
	conn, release := client.Dedicate()
	defer release()
	defer conn.Close()
	if command[0] == "SUBSCRIBE" {
		return conn.Do(queuetest.Bounded(t), conn.B().Subscribe().Channel(command[1:]...).Build()).Error()
	}
	return conn.Do(queuetest.Bounded(t), conn.B().Arbitrary(command...).Build()).Error()
}

// requireIdle requires that a worker of this user gets nothing done.
func (r *roleRun) requireIdle(client rueidis.Client) {
	r.t.Helper()
	heard := make(chan error, 1)
	q, err := beequeue.New(client, queueName, beequeue.Config{})
	require.NoError(r.t, err)
	q.OnError(func(err error) {
		if strings.Contains(err.Error(), "record and claim jobs") {
			select {
			case heard <- err:
			default:
			}
		}
	})
	running := queuetest.Process(r.t, q, 1, queuetest.Succeed)
	require.Regexp(r.t, refusal, queuetest.Receive(r.t, heard, "why nothing is claimed").Error())
	require.NoError(r.t, running.Stop())
	r.all.CloseQueue(q)
}

// contents gives all that the server holds.
func (r *roleRun) contents() map[string]string {
	r.t.Helper()
	contents := make(map[string]string)
	keys := r.site.nodes[0].Do(r.t, "KEYS", "*")
	names, err := keys.AsStrSlice()
	require.NoError(r.t, err)
	for _, name := range names {
		contents[name] = textOf(r.site.nodes[0].Do(r.t, "DUMP", name))
	}
	return contents
}
