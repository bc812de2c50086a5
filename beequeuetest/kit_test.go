package beequeuetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/beequeuetest"
	"github.com/gobeequeue/beequeue/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

type push struct {
	Target string `json:"target"`
	Body   string `json:"body,omitempty"`
}

func save(t *testing.T, q *beequeue.Queue, pushes ...push) {
	t.Helper()
	for _, p := range pushes {
		require.NoError(t, q.CreateJob(p).Save(t.Context()))
	}
}

func succeed(context.Context, *beequeue.Job) (any, error) { return "sent", nil }

var errOffline = errors.New("offline")

func offline(context.Context, *beequeue.Job) (any, error) { return nil, errOffline }

// summary gives outcomes as text: id, status.
func summary(outcomes []beequeuetest.Outcome) []string {
	words := []string{}
	for _, o := range outcomes {
		words = append(words, o.Job.ID+" "+string(o.Status))
	}
	return words
}

func TestKitFailures(t *testing.T) {
	t.Parallel()
	assert.Contains(t, failure(t, func(tb *fakeTB) { beequeuetest.New(tb).Queue("", beequeue.Config{}) }),
		"the queue's name is empty")
	assert.Contains(t, failure(t, func(tb *fakeTB) { beequeuetest.New(tb).Advance(-1) }),
		"the clock does not go back")
	assert.Contains(t, failure(t, func(tb *fakeTB) {
		kit := beequeuetest.New(tb)
		kit.Redis().SetError("OOM command not allowed")
		beequeuetest.Enqueued(tb, kit.Queue("push", beequeue.Config{}))
	}), "OOM command not allowed")
}

// A handler that does not return in time fails the test in its cleanup.
func TestUnfinishedHandler(t *testing.T) {
	t.Parallel()
	processed := make(chan error, 1)
	message := failure(t, func(tb *fakeTB) {
		kit := beequeuetest.New(tb)
		q := kit.Queue("push", beequeue.Config{ShutdownTimeout: time.Millisecond})
		save(t, q, push{Target: "a"})
		running := make(chan struct{})
		go func() {
			processed <- q.Process(context.Background(), 1, func(ctx context.Context, _ *beequeue.Job) (any, error) {
				close(running)
				<-ctx.Done()
				return nil, context.Cause(ctx)
			})
		}()
		<-running
	})
	assert.Contains(t, message, beequeue.ErrUnfinished.Error())
	require.ErrorIs(t, <-processed, beequeue.ErrUnfinished)
}

// The example is what it says it is.
func TestSignUp(t *testing.T) {
	t.Parallel()
	testSignUp(t)
}
