package beequeue

import (
	"context"
	"encoding/json"
	"fmt"
)

// Typed turns a func with types of its own into a Handler. The job's data is unmarshalled
// into In, and Out is the result. If the data does not fit In, the job fails for good with
// an error that wraps ErrNoRetry, because no retry would help.
func Typed[In, Out any](f func(ctx context.Context, in In) (Out, error)) Handler {
	return func(ctx context.Context, job *Job) (any, error) {
		var in In
		if err := job.Decode(&in); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoRetry, err)
		}
		return f(ctx, in)
	}
}

// WaitFor waits for a job like Job.Wait, and unmarshals its result into T. It returns T's
// zero value if there is no result.
func WaitFor[T any](ctx context.Context, job *Job) (T, error) {
	var out T
	result, err := job.Wait(ctx)
	if err != nil || len(result) == 0 {
		return out, err
	}
	if err := json.Unmarshal(result, &out); err != nil {
		return out, fmt.Errorf("beequeue: decode result of job %q: %w", job.ID, err)
	}
	return out, nil
}
