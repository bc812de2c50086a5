// Pong plays back every ball that ping serves, until Ctrl-C:
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
	flag.Parse()
	if err := run(*redis); err != nil {
		fmt.Fprintln(os.Stderr, "pong:", err)
		os.Exit(1)
	}
}

func run(redis string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := beequeue.Dial(ctx, redis)
	if err != nil {
		return err
	}
	defer client.Close()
	fmt.Println("pong is ready; Ctrl-C to stop")
	return rally.Pong(ctx, client)
}
