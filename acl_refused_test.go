package beequeue_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
)

// What is refused to all roles: what rules the server, and other queues.
var aclRefusedToAll = [][]string{
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

// What is refused to some, of the queue's own.
var aclRefusedTo = map[string][][]string{
	"producer": {
		{"LRANGE", aclBase + "active", "0", "-1"},
		{"LPUSH", aclBase + "active", "1"},
		{"HSET", aclBase + "owners", "1", "me/1"},
		{"DEL", aclBase + "jobs"},
		{"EVAL", "return redis.call('LPUSH', KEYS[1], 1)", "1", aclBase + "active"},
	},
	"observer": {
		{"HSET", aclBase + "jobs", "1", "{}"},
		{"LPUSH", aclBase + "waiting", "1"},
		{"DEL", aclBase + "jobs"},
		{"PUBLISH", aclBase + "events", "{}"},
		{"EVAL", "return redis.call('DEL', KEYS[1])", "1", aclBase + "jobs"},
	},
}

// aclRefusal is what Redis says: of a command, and of one in a script.
var aclRefusal = regexp.MustCompile("NOPERM|The user executing the script can't")

// aclRefused has a user do what its role does not ask for. What is refused leaves
// nothing behind.
func aclRefused(r *aclRun) {
	t := r.t
	client := r.dial()
	refused := func(err error, what ...string) {
		t.Helper()
		require.Error(t, err, what)
		require.Regexp(t, aclRefusal, err.Error(), what)
	}
	for _, command := range append(aclRefusedToAll, aclRefusedTo[r.user]...) {
		refused(aclSend(t, client, command), command...)
	}
	other, err := beequeue.New(client, "other", beequeue.Config{})
	require.NoError(t, err)
	defer r.all.close(other)
	refused(other.CreateJob(1).Save(bounded(t)))
	_, err = other.Counts(bounded(t))
	refused(err)

	waits := r.all.save("waits")
	r.all.lose("runs", "a worker that is gone")
	r.all.must("LPUSH", "waiting", "ghost")
	before := r.contents()
	q := r.open(client, beequeue.Config{})
	if r.user != "producer" {
		refused(q.CreateJob(1).Save(bounded(t)))
		refused(q.CreateJob(1).SetID("mine").Save(bounded(t)))
		refused(q.CreateJob(1).DelayUntil(time.Now().Add(time.Hour)).Save(bounded(t)))
	}
	if r.user != "worker" {
		_, err := q.CheckStalled(bounded(t))
		refused(err)
		r.requireIdle(client)
	}
	if r.user == "producer" || r.user == "observer" {
		refused(q.RemoveJob(bounded(t), waits.ID))
		job, err := q.GetJob(bounded(t), waits.ID)
		require.NoError(t, err)
		refused(job.Retry(bounded(t)))
		_, err = q.Repair(bounded(t))
		refused(err)
		_, err = q.Destroy(bounded(t))
		refused(err)
	}
	require.Equal(t, before, r.contents())
	client.Close()
}

// aclSend sends a command on a connection of its own.
func aclSend(t *testing.T, client rueidis.Client, command []string) error {
	t.Helper()
	conn, release := client.Dedicate()
	defer release()
	defer conn.Close()
	if command[0] == "SUBSCRIBE" {
		return conn.Do(bounded(t), conn.B().Subscribe().Channel(command[1:]...).Build()).Error()
	}
	return conn.Do(bounded(t), conn.B().Arbitrary(command...).Build()).Error()
}

// requireIdle demands that a worker of the user's gets nothing done.
func (r *aclRun) requireIdle(client rueidis.Client) {
	r.t.Helper()
	heard := make(chan error, 1)
	q, err := beequeue.New(client, aclQueue, beequeue.Config{})
	require.NoError(r.t, err)
	q.OnError(func(err error) {
		if strings.Contains(err.Error(), "record and claim jobs") {
			select {
			case heard <- err:
			default:
			}
		}
	})
	running := process(r.t, q, 1, succeed)
	require.Regexp(r.t, aclRefusal, receive(r.t, heard, "why nothing is claimed").Error())
	require.NoError(r.t, running.stop())
	r.all.close(q)
}

// contents gives all that the servers hold.
func (r *aclRun) contents() map[string]string {
	r.t.Helper()
	contents := make(map[string]string)
	keys := r.site.nodes[0].Do(r.t, "KEYS", "*")
	names, err := keys.AsStrSlice()
	require.NoError(r.t, err)
	for _, name := range names {
		contents[name] = aclText(r.site.nodes[0].Do(r.t, "DUMP", name))
	}
	return contents
}
