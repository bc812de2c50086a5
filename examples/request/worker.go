package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/gobeequeue/beequeue"
)

// Question is the data of a job.
type Question struct {
	Below int64 `json:"below"`
}

// Answer is the result of a job.
type Answer struct {
	Below  int64 `json:"below"`
	Primes int64 `json:"primes"`
}

// concurrency is how many questions a worker answers at once.
const concurrency = 4

// work answers questions until ctx ends.
func work(ctx context.Context, queue *beequeue.Queue, logger *log.Logger) error {
	queue.OnError(func(err error) {
		if errors.Is(err, beequeue.ErrOwnershipLost) {
			return // the request was given up, and its job removed while it ran
		}
		logger.Print(err)
	})
	return queue.Process(ctx, concurrency, beequeue.Typed(countPrimes))
}

// countPrimes is the handler. Typed decodes the job's data for it, and encodes
// its result.
func countPrimes(ctx context.Context, q Question) (Answer, error) {
	if q.Below < 0 {
		return Answer{}, fmt.Errorf("there is nothing to count below %d", q.Below)
	}
	answer := Answer{Below: q.Below}
	for n := int64(2); n < q.Below; n++ {
		if isPrime(n) {
			answer.Primes++
		}
		// A handler should end soon after its context: nobody needs its result.
		if n%1000 == 0 && ctx.Err() != nil {
			return Answer{}, context.Cause(ctx)
		}
	}
	return answer, nil
}

func isPrime(n int64) bool {
	for d := int64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
