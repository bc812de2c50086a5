// Pingpong plays a ball back and forth between two programs, over two queues,
// and prints how long each round takes: twice the way from Save in one program
// to the handler in the other.
//
//	go run ./examples/pingpong
//
// runs both sides in one process, on a Redis of its own. There is nothing to set
// up. That Redis is a simulation in Go; to see what a real one does, give its
// URL with -redis, or run the two programs, in two terminals:
//
//	go run ./examples/pingpong/pong -redis redis://127.0.0.1:6379
//	go run ./examples/pingpong/ping -redis redis://127.0.0.1:6379
//
// Both sides are in internal/rally.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gobeequeue/beequeue/examples/internal/embedded"
	"github.com/gobeequeue/beequeue/examples/pingpong/internal/rally"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "pingpong:", err)
		os.Exit(1)
	}
}

// run is the program, from its arguments to its error.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("pingpong", flag.ContinueOnError)
	redis := flags.String("redis", "", "`URL` of a Redis server or cluster; default: one in this process")
	rounds := flags.Int("rounds", 10, "`number` of rounds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client, closeRedis, err := embedded.Open(ctx, *redis)
	if err != nil {
		return err
	}
	defer closeRedis()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ponged := make(chan error, 1)
	go func() {
		defer stop()
		ponged <- rally.Pong(ctx, client)
	}()
	err = rally.Ping(ctx, client, *rounds, out)
	stop()
	return errors.Join(err, <-ponged)
}
