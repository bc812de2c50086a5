package beequeuetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/beequeuetest"
)

// Mail is the data of a job.
type Mail struct {
	To, Kind string
}

// SignUp is code under test that saves a job.
func SignUp(ctx context.Context, q *beequeue.Queue, user string) error {
	return q.CreateJob(Mail{To: user, Kind: "welcome"}).
		Retries(3).Backoff(beequeue.Fixed, time.Minute).Save(ctx)
}

// Mailer is code under test that handles jobs.
type Mailer struct {
	Deliver func(Mail) error
}

// Send is a handler, by way of beequeue.Typed.
func (m Mailer) Send(_ context.Context, mail Mail) (string, error) {
	return "sent to " + mail.To, m.Deliver(mail)
}

// testSignUp stands for TestSignUp, which a test file has instead.
func testSignUp(t *testing.T) {
	kit := beequeuetest.New(t)
	q := kit.Queue("mail", beequeue.Config{})

	// What was saved.
	if err := SignUp(t.Context(), q, "mh"); err != nil {
		t.Fatal(err)
	}
	jobs := beequeuetest.RequireEnqueuedData(t, q, Mail{To: "mh", Kind: "welcome"})
	if retries := jobs[0].Options.Retries; retries != 3 {
		t.Errorf("%d retries", retries)
	}

	// A first run that fails.
	broken := Mailer{Deliver: func(Mail) error { return errors.New("no route") }}
	outcomes := kit.Run(t, q, beequeue.Typed(broken.Send))
	if len(outcomes) != 1 || outcomes[0].Status != beequeue.StatusRetrying {
		t.Errorf("got %+v", outcomes)
	}

	// The retry, a minute later.
	kit.Advance(time.Minute)
	working := Mailer{Deliver: func(Mail) error { return nil }}
	outcomes = kit.Run(t, q, beequeue.Typed(working.Send))
	if len(outcomes) != 1 || string(outcomes[0].Result) != `"sent to mh"` {
		t.Errorf("got %+v", outcomes)
	}
	beequeuetest.RequireNothingEnqueued(t, q)
}

// A test of code that saves jobs, and of the handler that runs them.
func Example() {
	var t *testing.T // the test's
	testSignUp(t)
}
