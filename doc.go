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
//	CreateJob, Save --+--> waiting --> active --+--> succeeded
//	                  |       ^                 |
//	                  |       |                 +--> failed     no retries left, or stalled
//	                  |       | when it         |               too often
//	                  |       | is due          +--> waiting    retried at once, handed back,
//	                  |       |                 |               or its worker was lost
//	                  +--> delayed              +--> delayed    retried after a backoff
//
//	Job.Retry: failed --> waiting
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
//     silent for so long that its job was given to another, it changes nothing when it
//     goes on.
//   - Nothing else is exactly once. A job whose worker is lost is run again, so handlers
//     should be idempotent.
//
// Where Node processes work on the same queue, they follow Bee-Queue's rules instead. Node
// takes jobs back without telling who has them, so a worker that was silent for that long
// can finish a job that a Node process is running.
//
// All keys of a queue lie in one slot of a Redis Cluster by default.
//
// # Callbacks
//
// There are three kinds of listeners, as in Bee-Queue. Local callbacks, OnSucceeded and its
// like, hear what this queue value did (Bee-Queue's local events). The OnJob callbacks hear
// what any process did (Pub/Sub events). Job.Watch hears of one job.
//
// Set callbacks before Process. Local callbacks run one after the other, beside the
// handlers. While one is slow the others wait, and in the end the worker waits too. A
// callback that panics is reported to OnError.
//
// # Words
//
// These words mean the same in the documentation, in errors and in logs.
//
//   - Job: a unit of work with its payload and options.
//   - Record: the JSON object that Redis keeps for a job, in Bee-Queue's format.
//   - State: the place a job is in, which is waiting, delayed, active, succeeded or failed.
//   - Status: what a job's record says about its last run; created before the first.
//   - Worker: a Process or Drain that is running, or the program that runs it.
//   - Queue value: a *Queue, as New returns it; many may stand for the same queue.
//   - Claim: to take a job from waiting into active, and so to own it.
//   - Owner: the worker that claimed a job, until the run's outcome is recorded or the job is
//     handed back, taken back or removed.
//   - Run: one call of the handler for one job.
//   - Slot: in a worker, the room for one run; in a Redis Cluster, a share of the keys.
//   - Outcome: what a run means for its job, which succeeds, is retried, or fails for good.
//   - Failed for good: failed, with no retries left or allowed.
//   - Retry: of a worker, to run a failed job once more, as many times as Job.Retries allows;
//     of Job.Retry, to put a job that failed for good back into waiting.
//   - Turn: one call from a worker to Redis that records outcomes and claims jobs.
//   - Phone in: to tell Redis that the worker still has a job.
//   - Heartbeat: a worker's regular call, three times in a stall interval, that phones in
//     for all jobs that the worker may own and learns which of them it has lost.
//   - Stall check, or sweep: the search for jobs that stalled, once in a stall interval
//     over all processes.
//   - Stall: of a job, to be active while nobody phones in for it, from one stall check to
//     the next and during the probation.
//   - Probation: the time that a stall check leaves silent workers to phone in before it
//     takes their jobs back, which is half a stall interval, or a second if that is less.
//   - Lost worker: the worker of a job that stalled. It died, was stopped, was cut off, or
//     no longer knows of the job because a server lost writes.
//   - Taken back: taken from a lost worker by a stall check, and put back into waiting or,
//     after too many times, failed.
//   - Handed back: put back into waiting, unfinished, by the job's own worker as it stops.
//   - Grace period: the time that handlers have to return when their worker stops, or after
//     their job's timeout.
//   - Raise: to move a delayed job to waiting when it is due.
//   - Event: a message that tells all processes what happened to a job.
//   - Callback, or local callback: a func that hears what this queue value did.
//   - OnJob callback: a func that hears the events of all jobs of the queue.
//   - Hash tag: the part of a key in braces, as in `bq:{push}:waiting`, which keeps all keys
//     of a queue in one slot of a cluster.
//   - Plain keys: Bee-Queue's key names, without a hash tag, as in `bq:push:waiting`.
//   - Key layout: how a queue's keys are named, with a hash tag or as plain keys.
//
// The file docs/internals.md follows a job through the source.
package beequeue
