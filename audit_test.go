package beequeue_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// Audit finds jobs that are in no state or in several, and Repair puts each where it
// belongs.
func TestAuditAndRepair(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		record := func(status string) string {
			return `{"data":{},"options":{"timestamp":1,"stacktraces":[]},"status":"` + status + `","progress":0}`
		}
		future := strconv.Itoa(int(time.Now().Add(time.Hour).UnixMilli()))
		future = strings.TrimSpace(future)
		type place struct{ key, score string }
		in := func(keys ...string) (places []place) {
			for _, k := range keys {
				places = append(places, place{k, future})
			}
			return places
		}
		cases := []struct {
			id      string
			record  string // "" for none
			places  []place
			owner   bool // a worker with a lease has it
			problem beequeue.Problem
			now     beequeue.State
		}{
			{"ghost waiting", "", in("waiting"), false, beequeue.ProblemGhost, ""},
			{"ghost everywhere", "", in("waiting", "active", "delayed", "succeeded", "failed"), false, beequeue.ProblemGhost, ""},
			{"orphan created", record("created"), nil, false, beequeue.ProblemOrphan, beequeue.StateWaiting},
			{"orphan retrying", record("retrying"), nil, false, beequeue.ProblemOrphan, beequeue.StateWaiting},
			{"orphan succeeded", record("succeeded"), nil, false, beequeue.ProblemOrphan, beequeue.StateSucceeded},
			{"orphan failed", record("failed"), nil, false, beequeue.ProblemOrphan, beequeue.StateFailed},
			{"orphan delayed", strings.Replace(record("created"), `"timestamp"`, `"delay":`+future+`,"timestamp"`, 1), nil, false, beequeue.ProblemOrphan, beequeue.StateDelayed},
			{"orphan of no JSON", "nonsense", nil, false, beequeue.ProblemOrphan, beequeue.StateWaiting},
			{"orphan of wrong JSON", "[1]", nil, false, beequeue.ProblemOrphan, beequeue.StateWaiting},
			{"orphan that says otherwise", strings.Replace(record("created"), `{}`, `{"x":"\"status\":\"failed\""}`, 1), nil, false, beequeue.ProblemOrphan, beequeue.StateWaiting},
			{"twice in waiting", record("created"), in("waiting", "waiting"), false, beequeue.ProblemTwice, beequeue.StateWaiting},
			{"twice in active", record("created"), in("active", "active"), false, beequeue.ProblemTwice, beequeue.StateActive},
			{"done and waiting", record("succeeded"), in("waiting", "succeeded"), false, beequeue.ProblemTwice, beequeue.StateSucceeded},
			{"done and running", record("succeeded"), in("active", "succeeded"), true, beequeue.ProblemTwice, beequeue.StateActive},
			{"done and in active", record("succeeded"), in("active", "succeeded"), false, beequeue.ProblemTwice, beequeue.StateSucceeded},
			{"failed and waiting again", record("retrying"), in("waiting", "failed"), false, beequeue.ProblemTwice, beequeue.StateWaiting},
			{"running and waiting", record("created"), in("waiting", "active"), true, beequeue.ProblemTwice, beequeue.StateActive},
			{"active and waiting", record("created"), in("waiting", "active"), false, beequeue.ProblemTwice, beequeue.StateActive},
			{"waiting and delayed", record("retrying"), in("waiting", "delayed"), false, beequeue.ProblemTwice, beequeue.StateWaiting},
			{"succeeded and failed", record("failed"), in("succeeded", "failed"), false, beequeue.ProblemTwice, beequeue.StateFailed},
			{"id\nwith {\"odd\"} 'bytes' é", "", in("waiting"), false, beequeue.ProblemGhost, ""},
		}
		for _, state := range queuetest.States {
			f.Save(string(state)) // what is in order is left alone
		}
		queuetest.Drain(t, f.Queue, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
			if string(job.Data) == `"failed"` {
				return nil, queuetest.ErrBroken
			}
			return nil, nil
		})
		healthy := f.Save("healthy")
		f.Must("ZADD", "workers", future, "token")
		for _, c := range cases {
			f.Must("HSET", "stalls", c.id, "1")
			if c.record != "" {
				f.Must("HSET", "jobs", c.id, c.record)
			}
			if c.owner {
				f.Must("HSET", "owners", c.id, "token/1")
			}
			for _, p := range c.places {
				switch p.key {
				case "waiting", "active":
					f.Must("LPUSH", p.key, c.id)
				case "delayed":
					f.Must("ZADD", p.key, p.score, c.id)
				default:
					f.Must("SADD", p.key, c.id)
				}
			}
		}
		check := func(findings []beequeue.Finding, err error, repaired bool) {
			t.Helper()
			require.NoError(t, err)
			require.Len(t, findings, len(cases))
			for _, c := range cases {
				at := slices.IndexFunc(findings, func(f beequeue.Finding) bool { return f.ID == c.id })
				require.GreaterOrEqual(t, at, 0, c.id)
				found := findings[at]
				require.Equal(t, c.problem, found.Problem, c.id)
				require.Len(t, found.States, len(c.places), c.id)
				require.Contains(t, found.String(), string(c.problem))
				if repaired {
					require.Equal(t, c.now, found.Now, c.id)
				}
			}
		}
		findings, err := f.Audit(queuetest.Bounded(t))
		check(findings, err, false)
		findings, err = f.Audit(queuetest.Bounded(t)) // which has changed nothing
		check(findings, err, false)
		findings, err = f.Repair(queuetest.Bounded(t))
		check(findings, err, true)
		findings, err = f.Audit(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Empty(t, findings)
		findings, err = f.Repair(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Empty(t, findings)

		stalls := f.List("HKEYS", "stalls")
		for _, c := range cases {
			if c.now != "" {
				f.RequireState(c.id, c.now)
			}
			// A repaired end clears the count of stalls, as the end of a run does.
			ended := c.now == "" || c.now == beequeue.StateSucceeded || c.now == beequeue.StateFailed
			require.Equal(t, !ended, slices.Contains(stalls, c.id), c.id)
		}
		f.RequireState(healthy.ID, beequeue.StateWaiting)
		f.Must("DEL", "owners") // of the worker that there is not
		require.NoError(t, f.Close(queuetest.Bounded(t)))
		_, err = f.Audit(context.Background())
		require.ErrorIs(t, err, beequeue.ErrClosed)
	})
}

// A job that Repair takes out of failed keeps no reason to be there.
func TestRepairForgetsReasons(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		f.Plant("orphan", "nonsense")
		f.Plant("twice", "nonsense")
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		f.ExpectError(queuetest.As[*beequeue.RecordError])
		f.ExpectError(queuetest.As[*beequeue.RecordError])
		require.ElementsMatch(t, []string{"orphan", "twice"}, f.List("HKEYS", "reasons"))
		f.Must("SREM", "failed", "orphan")
		f.Must("LPUSH", "waiting", "twice")
		findings, err := f.Repair(queuetest.Bounded(t))
		require.NoError(t, err)
		require.Len(t, findings, 2)
		require.Equal(t, []string{"orphan", "twice"}, f.Waiting())
		require.Empty(t, f.List("HKEYS", "reasons"))
	})
}

// An Audit beside busy workers finds nothing, and a Repair harms nothing.
func TestAuditBesideWorkers(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		const n = 600
		jobs := make([]*beequeue.Job, n)
		for i := range jobs {
			jobs[i] = f.CreateJob(i).Retries(1)
		}
		require.NoError(t, f.SaveAll(queuetest.Bounded(t), jobs))
		runs := make(chan string, 2*n)
		r := queuetest.Process(t, f.Queue, 10, func(_ context.Context, job *beequeue.Job) (any, error) {
			runs <- job.ID
			if job.Options.Retries == 1 && len(job.ID)%2 == 0 {
				return nil, queuetest.ErrBroken
			}
			return nil, nil
		})
		looks := 0
		queuetest.Await(t, "all jobs to succeed", func() bool {
			look := f.Audit
			if looks%2 == 1 {
				look = f.Repair
			}
			looks++
			findings, err := look(queuetest.Bounded(t))
			require.NoError(t, err)
			require.Empty(t, findings)
			counts, err := f.Counts(queuetest.Bounded(t))
			require.NoError(t, err)
			return counts.Succeeded == n
		})
		require.NoError(t, r.Stop())
		require.Positive(t, looks)
	})
}
