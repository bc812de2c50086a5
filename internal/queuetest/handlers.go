package queuetest

import (
	"context"
	"errors"

	"github.com/gobeequeue/beequeue"
)

// Succeed is a handler that does nothing.
func Succeed(context.Context, *beequeue.Job) (any, error) { return nil, nil }

// ErrBroken is what handlers fail with.
var ErrBroken = errors.New("broken")

// Fail is a handler that fails with ErrBroken.
func Fail(context.Context, *beequeue.Job) (any, error) { return nil, ErrBroken }

// States are all states of a job.
var States = []beequeue.State{
	beequeue.StateWaiting, beequeue.StateActive, beequeue.StateDelayed, beequeue.StateSucceeded, beequeue.StateFailed,
}

// Is gives a match for Fixture.ExpectError: an error that wraps target.
func Is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// As is a match for Fixture.ExpectError: an error of type E.
func As[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}
