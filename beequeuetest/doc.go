// Package beequeuetest helps to test code that saves or handles jobs. A Kit is
// a Redis in the test's own process, without a port, with a clock that a test
// moves; it ends with the test.
//
//	func TestSignUp(t *testing.T) {
//		kit := beequeuetest.New(t)
//		q := kit.Queue("mail", beequeue.Config{})
//
//		app.SignUp(t.Context(), q, "mh")
//
//		jobs := beequeuetest.RequireEnqueuedData(t, q, app.Mail{To: "mh", Kind: "welcome"})
//		require.Equal(t, 3, jobs[0].Options.Retries)
//
//		outcomes := kit.Run(t, q, app.NewMailer(brokenServer).Handle)
//		require.Equal(t, beequeue.StatusRetrying, outcomes[0].Status)
//
//		kit.Advance(time.Minute) // the job's backoff
//		outcomes = kit.Run(t, q, app.NewMailer(server).Handle)
//		require.Equal(t, beequeue.StatusSucceeded, outcomes[0].Status)
//	}
//
// # The clock
//
// The kit's clock decides when delayed jobs, and jobs that wait for a retry, are
// due. It goes with the process's clock, in whole milliseconds, ahead of it by
// what Advance added up to; while Run or RunAll work it stands still. So Advance
// by the delay that a job was saved with makes the job due, and a short backoff
// does not come up within the Run that failed the job, however slow the machine.
// Between two calls of Run real time passes: where a test wants to see that a
// job does not run yet, let its delay be a second or more. That costs nothing.
//
// Some times are the process's, and Advance does not change them: time.Now in
// the code under test, Job.Timeout and the contexts of handlers,
// Options.Created, and the times that workers wait, except for delayed jobs.
//
// Job.DelayUntil takes a time of day, and the process's clock says whether it is
// past, which means no delay. The kit's clock is never behind the process's: what
// is past for the process is past for the kit. But after an Advance a time may
// lie between the two clocks. A job that is delayed until then goes into delayed
// and is due at once; the next Run runs it. Code that computes
// `time.Now().Add(delay)` after an Advance of more than its delay makes such
// jobs. So either give the code under test Kit.Now as its clock, or advance only
// after it has saved its jobs.
//
// # In a synctest bubble
//
// A kit made in a bubble of testing/synctest works there: all of it runs in the
// bubble, and its connections block durably. Then every clock is the bubble's,
// also those that Advance does not change, and waiting moves them all; Advance
// works on top of that. It is the way to test a whole worker (Queue.Process)
// with its delays and timeouts. A worker looks around every few seconds of the
// bubble's time, which makes an hour of waiting cost a second or so; to pass days,
// Advance instead. End Process before the bubble does, by its
// context or by closing the queue: the kit closes its queues in the test's
// cleanup, which belongs to the bubble.
//
// # What it is not
//
// The server is miniredis, which has one database, runs one command at a time,
// and is no cluster. It is for tests only: do not import this package from code
// that goes into a program.
package beequeuetest
