// Request shows a web server that has a worker do the work, and answers with
// what the worker found: it saves a job, waits for its result, and writes that
// into the response. The browser sees an ordinary request; the work may be done
// on any machine, and only so much of it at once.
//
//	go run ./examples/request
//
// starts the server and a worker on a Redis of its own, makes some requests, and
// ends. There is nothing to set up. To make your own requests, let it listen:
//
//	go run ./examples/request -listen 127.0.0.1:8080
//	curl 'http://127.0.0.1:8080/primes?below=1000000'
//
// With -redis URL it works on a server or cluster; any number of these processes
// then share the work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/examples/internal/embedded"
	"github.com/gobeequeue/beequeue/examples/internal/web"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "request:", err)
		os.Exit(1)
	}
}

// run is the program, from its arguments to its error.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("request", flag.ContinueOnError)
	redis := flags.String("redis", "", "`URL` of a Redis server or cluster; default: one in this process")
	listen := flags.String("listen", "", "`address` to serve on until Ctrl-C; default: make some requests and end")
	wait := flags.Duration("wait", time.Second, "how long a request may take")
	if err := flags.Parse(args); err != nil {
		return err
	}

	client, closeRedis, err := embedded.Open(ctx, *redis)
	if err != nil {
		return err
	}
	defer closeRedis()
	queue, err := beequeue.New(client, "primes", beequeue.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, queue.Close(context.WithoutCancel(ctx))) }()
	if err := queue.Ready(ctx); err != nil {
		return err
	}

	address := *listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := web.Listen(ctx, address)
	if err != nil {
		return err
	}
	s := &server{queue: queue, wait: *wait, log: log.New(out, "", log.Ltime|log.Lmicroseconds)}
	if *listen != "" {
		s.log.Printf("listening, try curl 'http://%s/primes?below=1000000'", listener.Addr())
		return serve(ctx, s, listener)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, s, listener) }()
	err = askAround(ctx, listener.Addr(), out)
	cancel()
	return errors.Join(err, <-served)
}

// serve runs the web server and a worker until ctx ends or one of them fails.
func serve(ctx context.Context, s *server, listener net.Listener) error {
	// The worker ends after the web server, whose last requests wait for it.
	workCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	worked := make(chan error, 1)
	go func() {
		defer cancel()
		worked <- work(workCtx, s.queue, s.log)
	}()
	err := web.Serve(ctx, listener, s.handler())
	stop()
	return errors.Join(err, <-worked)
}

// askAround makes one request for each thing that can come of it.
func askAround(ctx context.Context, address net.Addr, out io.Writer) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, below := range []string{"100", "1000000", "a-lot", "-5", "1000000000000"} {
		start := time.Now()
		path := "/primes?below=" + below
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address.String()+path, http.NoBody)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "GET %-28s %s (%v)\n    %s\n", path, response.Status,
			time.Since(start).Round(100*time.Microsecond), strings.TrimSpace(string(body)))
	}
	return nil
}
