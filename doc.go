// Package beequeue is a job queue on Redis, wire-compatible with Node's
// Bee-Queue 2.x: an API server saves jobs, worker programs process them, and
// both hear what became of them.
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
// A job is in exactly one of these places at any time; each move is one Lua
// script, which Redis runs as one step.
//
// # What is guaranteed
//
//   - A job whose Save returned nil is run at least once, as long as Redis keeps
//     its data: also if workers die, connections break or Redis restarts.
//   - A Save enqueues its job once, however often its request had to be sent.
//   - The outcome of a run counts only while the worker owns the job. A worker
//     that was stopped for longer than its lease, and goes on after another has
//     taken the job over, changes nothing.
//   - Nothing else is exactly once: a job whose worker is lost is run again, so
//     handlers should be idempotent.
//
// Where Node processes work on the same queue, they follow Bee-Queue's rules and
// not these: Node takes jobs back without telling who has them, so a worker that
// was stopped beyond its lease can finish a job that a Node process is running.
//
// All keys of a queue lie in one slot of a Redis Cluster by default.
//
// # Reading the source
//
// In the order things happen: queue.go, job.go (with record.go, backoff.go),
// producer.go (with replicas.go), consumer.go (with stalled.go, delayed.go), events.go (with hub.go,
// wait.go), lookup.go; below them calls.go, scripts.go with lua/, replies.go, and
// cluster.go with every key name.
package beequeue
