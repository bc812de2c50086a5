// Package rally has the two players of the ping-pong example. A ball is a job:
// in the queue "ping" on its way to Pong, in the queue "pong" on its way back.
package rally

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
)

// Ball is the data of a job.
type Ball struct {
	Game  uint32 `json:"game"` // tells balls of a game that was broken off
	Round int    `json:"round"`
}

// patience is how long Ping waits for a ball to come back.
const patience = 10 * time.Second

// Ping plays a number of rounds against Pong, and prints how long each took. Only
// one Ping can play on a Redis at a time: there is one queue for the way back.
func Ping(ctx context.Context, client rueidis.Client, rounds int, out io.Writer) (err error) {
	if rounds < 1 {
		return fmt.Errorf("%d rounds are no game", rounds)
	}
	there, back, err := open(ctx, client)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBoth(ctx, there, back)) }()

	playing, stop := context.WithCancel(ctx)
	defer stop()
	game := rand.Uint32()
	returned := make(chan Ball)
	catch := beequeue.Typed(func(_ context.Context, ball Ball) (any, error) {
		if ball.Game != game {
			return nil, nil
		}
		select {
		case returned <- ball:
			return nil, nil
		case <-playing.Done():
			return nil, context.Cause(playing)
		}
	})
	caught := make(chan error, 1)
	go func() {
		defer stop()
		caught <- back.Process(playing, 1, catch)
	}()

	took, err := play(playing, there, returned, game, rounds, out)
	stop()
	if err = errors.Join(err, <-caught); err != nil {
		return err
	}
	slices.Sort(took)
	fmt.Fprintf(out, "%d rounds: fastest %v, median %v, slowest %v\n",
		rounds, show(took[0]), show(took[len(took)/2]), show(took[len(took)-1]))
	return nil
}

// play plays the rounds, and returns how long each took.
func play(ctx context.Context, there *beequeue.Queue, returned <-chan Ball, game uint32, rounds int, out io.Writer) ([]time.Duration, error) {
	var took []time.Duration
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for round := 1; round <= rounds; round++ {
		start := time.Now()
		timer.Reset(patience)
		if err := there.CreateJob(Ball{Game: game, Round: round}).Save(ctx); err != nil {
			return nil, err
		}
		// A job may be run more than once, so a ball may come back twice.
		for ball := (Ball{}); ball.Round != round; {
			select {
			case ball = <-returned:
			case <-timer.C:
				return nil, fmt.Errorf("round %d: the ball is not back after %v; is pong running?", round, patience)
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		took = append(took, time.Since(start))
		fmt.Fprintf(out, "round %3d  %v\n", round, show(took[round-1]))
	}
	return took, nil
}

// show leaves out what is below ten microseconds.
func show(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// Pong plays every ball back until ctx ends.
func Pong(ctx context.Context, client rueidis.Client) (err error) {
	there, back, err := open(ctx, client)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBoth(ctx, there, back)) }()
	return there.Process(ctx, 1, beequeue.Typed(func(ctx context.Context, ball Ball) (any, error) {
		return nil, back.CreateJob(ball).Save(ctx)
	}))
}

// open makes the queues of the two ways.
func open(ctx context.Context, client rueidis.Client) (there, back *beequeue.Queue, err error) {
	// Nobody looks at a ball that was played.
	config := beequeue.Config{RemoveOnSuccess: true, RemoveOnFailure: true}
	if there, err = beequeue.New(client, "ping", config); err != nil {
		return nil, nil, err
	}
	if back, err = beequeue.New(client, "pong", config); err != nil {
		return nil, nil, err
	}
	return there, back, errors.Join(there.Ready(ctx), back.Ready(ctx))
}

// closeBoth closes the queues, although ctx may have ended.
func closeBoth(ctx context.Context, there, back *beequeue.Queue) error {
	ctx = context.WithoutCancel(ctx)
	return errors.Join(there.Close(ctx), back.Close(ctx))
}
