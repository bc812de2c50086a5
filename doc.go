// Package beequeue is a job queue on Redis, wire-compatible with Node's Bee-Queue 2.x. An
// API server saves jobs, worker programs process them, and both learn what became of them.
//
//	client, err := beequeue.Dial(ctx, "redis://127.0.0.1:6379")
//	q, err := beequeue.New(client, "push", beequeue.Config{})
//
//	// In the API server:
//	job := q.CreateJob(Push{Target: "mh", Body: "hi"}).
//		Retries(3).Backoff(beequeue.Exponential, time.Second)
//	err = job.Save(ctx)
//
//	// In a worker:
//	err = q.Process(ctx, 50, func(ctx context.Context, job *beequeue.Job) (any, error) {
//		var p Push
//		if err := job.Decode(&p); err != nil {
//			return nil, err
//		}
//		return send(ctx, p)
//	})
//
// # The way of a job
//
//	CreateJob, Save --> waiting --> active --> succeeded
//	            \          ^          |
//	             \         |          +--> failed      no retries left, or stalled
//	              v        |          |                too often; Retry: waiting
//	             delayed --+          +--> waiting     retried at once, handed
//	                 ^                |                back, or its worker was lost
//	                 |                |
//	                 +----------------+                retried after a backoff
//
// A job is in exactly one of these places at any time. Each move is made by one Lua
// script, which Redis runs as one step.
//
// # What is guaranteed
//
//   - A job whose Save returned nil is run at least once, as long as Redis keeps its data:
//     even if workers die, connections break or Redis restarts.
//   - A Save enqueues its job once, however often its request had to be sent.
//   - The outcome of a run counts only while the worker owns the job. If a worker was
//     stopped for longer than its lease and another has taken the job over, it changes
//     nothing when it goes on.
//   - Nothing else is exactly once. A job whose worker is lost is run again, so handlers
//     should be idempotent.
//
// Where Node processes work on the same queue, they follow Bee-Queue's rules instead. Node
// takes jobs back without telling who has them, so a worker that was stopped beyond its
// lease can finish a job that a Node process is running.
//
// All keys of a queue lie in one slot of a Redis Cluster by default.
//
// # Words
//
// These words mean the same in the documentation, in errors and in logs.
//
//   - Job: a unit of work with its payload and options.
//   - Record: the JSON object that Redis keeps for a job, in Bee-Queue's format.
//   - State: the place a job is in, which is waiting, delayed, active, succeeded or failed.
//   - Status: what a job's record says about its last run.
//   - Producer: a program that saves jobs.
//   - Worker: a Process or Drain that is running, or the program that runs it.
//   - Queue value: a *Queue, as New returns it; many may stand for the same queue.
//   - Claim: to take a job from waiting into active, and so to own it.
//   - Owner: the worker that claimed a job, until the run's outcome is recorded or the job is
//     handed back, taken back or removed.
//   - Run: one call of the handler for one job.
//   - Slot: in a worker, the room for one run; in a Redis Cluster, a share of the keys.
//   - Outcome: what a run means for its job, which succeeds, is retried, or fails for good.
//   - Failed for good: failed, with no retries left or allowed.
//   - At least once: a saved job is run until an outcome is recorded, which can take more
//     than one run.
//   - Turn: one call from a worker to Redis that records outcomes and claims jobs.
//   - Lease: the time for which a worker's jobs are safe from being taken back, which the
//     worker keeps renewing.
//   - Heartbeat: a worker's regular call that renews its lease and learns which jobs it has
//     lost.
//   - Lost worker: a worker that died, or was silent for longer than its lease.
//   - Stall: of a job, to lose its worker during a run.
//   - Stall check, or sweep: the regular search for jobs that stalled.
//   - Taken back: put back into waiting by a stall check, because the worker is lost.
//   - Handed back: put back into waiting, unfinished, by the job's own worker as it stops.
//   - Grace period: the time that handlers have to return when their worker stops, or after
//     their job's timeout.
//   - Raise: to move a delayed job to waiting when it is due.
//   - Event: a message that tells all processes what happened to a job.
//   - Watch: a Wait or Watch that is running, and follows the events of one job.
//   - Hash tag: the part of a key in braces, as in `bq:{push}:waiting`, which keeps all keys
//     of a queue in one slot of a cluster.
//   - Key layout: how a queue's keys are named, with a hash tag or, as plain keys, without.
//
// The file docs/internals.md follows a job through the source.
package beequeue
