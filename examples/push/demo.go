package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/examples/internal/embedded"
	"github.com/gobeequeue/beequeue/examples/internal/web"
)

// summary is what a demo comes to.
type summary struct {
	saved int
	counts
	took time.Duration
}

func (s summary) String() string {
	gone := ""
	if s.gone > 0 {
		gone = fmt.Sprintf(" (%d gone: no such device any more, so no retries)", s.gone)
	}
	return fmt.Sprintf("\nsaved    %3d jobs, for one message\nsent     %3d\nretried  %3d times\nfailed   %3d%s\ntime     %v\n",
		s.saved, s.sent, s.retried, s.failed, gone, s.took.Round(time.Millisecond))
}

// check tells whether every job that was saved is accounted for.
func (s summary) check() error {
	if s.saved != s.finished() {
		return fmt.Errorf("%d jobs were saved, but %d have finished", s.saved, s.finished())
	}
	return nil
}

// runDemo runs all sides, posts one message, and waits until its pushes are done.
// If ctx ends before, the summary is of what was done by then.
func runDemo(ctx context.Context, o options, show *console) (s summary, err error) {
	client, stop, err := embedded.Open(ctx, o.redis)
	if err != nil {
		return s, err
	}
	defer stop()

	// A queue of the demo's own, for a server that has others. Two values, as if
	// the API and the worker were two processes.
	name := fmt.Sprintf("%s-demo-%08x", queueName, rand.Uint32())
	var queues [2]*beequeue.Queue
	for i := range queues {
		if queues[i], err = beequeue.New(client, name, queueConfig()); err != nil {
			return s, err
		}
	}
	defer func() { err = errors.Join(err, cleanUp(context.WithoutCancel(ctx), queues[:])) }()

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	// The sides end in reverse order: the worker, which may have pushes to send
	// when ctx has ended, before the gateway.
	if o.gateway == "" {
		listener, err := web.Listen(ctx, "127.0.0.1:0")
		if err != nil {
			return s, err
		}
		o.gateway = "http://" + listener.Addr().String()
		defer start(context.WithoutCancel(ctx), fail, func(ctx context.Context) error {
			return web.Serve(ctx, listener, newGateway(o.seed))
		})()
	}
	w := newWorker(o, queues[0], show)
	w.tally = newTally(o.members - 1)
	defer func() { s.counts = w.tally.counts() }() // when the worker has ended
	defer start(ctx, fail, w.run)()

	if o.listen == "" {
		o.listen = "127.0.0.1:0"
	}
	listener, err := web.Listen(ctx, o.listen)
	if err != nil {
		return s, err
	}
	api := newChat(queues[1], o.members, show)
	defer start(ctx, fail, func(ctx context.Context) error { return api.run(ctx, listener) })()

	began := time.Now()
	if s.saved, err = post(ctx, messagesURL(listener), message{Sender: "member-1", Text: "hello everybody"}); err != nil {
		return s, err
	}
	select {
	case <-w.tally.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.took = time.Since(began)
	return s, err
}

// start runs a side beside the others, and tells fail if it fails. What it
// returns ends the side, and waits until it has ended.
func start(ctx context.Context, fail func(error), side func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := side(ctx); err != nil {
			fail(err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// cleanUp leaves nothing of the demo in Redis.
func cleanUp(ctx context.Context, queues []*beequeue.Queue) error {
	_, err := queues[0].Destroy(ctx)
	for _, queue := range queues {
		err = errors.Join(err, queue.Close(ctx))
	}
	return err
}

// post sends a message to the API, as a phone would, and returns the number of
// pushes it is to make.
func post(ctx context.Context, url string, m message) (int, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return 0, errors.Join(fmt.Errorf("the API says %s: %s", response.Status, bytes.TrimSpace(text)), err)
	}
	var a accepted
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return 0, fmt.Errorf("read the API's answer: %w", err)
	}
	return a.Jobs, nil
}
