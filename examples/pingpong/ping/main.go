// Ping serves a ball, waits for it to come back, and prints how long that took.
// Start pong beside it:
//
//	go run ./examples/pingpong/pong -redis redis://127.0.0.1:6379
//	go run ./examples/pingpong/ping -redis redis://127.0.0.1:6379
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/examples/pingpong/internal/rally"
)

func main() {
	redis := flag.String("redis", "redis://127.0.0.1:6379", "`URL` of a Redis server or cluster")
	rounds := flag.Int("rounds", 10, "`number` of rounds")
	flag.Parse()
	if err := run(*redis, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "ping:", err)
		os.Exit(1)
	}
}

func run(redis string, rounds int) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := beequeue.Dial(ctx, redis)
	if err != nil {
		return err
	}
	defer client.Close()
	return rally.Ping(ctx, client, rounds, os.Stdout)
}
