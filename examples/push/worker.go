package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gobeequeue/beequeue"
)

// worker takes jobs from the queue and sends them to the gateway.
type worker struct {
	queue       *beequeue.Queue
	url         string // of the gateway
	http        *http.Client
	concurrency int
	show        *console
	verbose     bool
	tally       *tally
}

func newWorker(o options, queue *beequeue.Queue, show *console) *worker {
	gateway := o.gateway
	if gateway == "" {
		gateway = defaultGateway
	}
	return &worker{
		queue:       queue,
		url:         gateway + "/push",
		http:        &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.concurrency}},
		concurrency: o.concurrency,
		show:        show,
		verbose:     o.verbose,
		tally:       newTally(0),
	}
}

// runWorker works until ctx ends, and says what it did.
func runWorker(ctx context.Context, o options, queue *beequeue.Queue, show *console) error {
	w := newWorker(o, queue, show)
	err := w.run(ctx)
	show.clear()
	show.logf("worker: stopped, %v", w.tally.counts())
	return err
}

// run works until ctx ends. Then it takes no more jobs, and finishes those it
// has.
func (w *worker) run(ctx context.Context) error {
	defer w.http.CloseIdleConnections()
	w.listen()
	return w.queue.Process(ctx, w.concurrency, w.push)
}

// listen logs what becomes of the jobs, and counts it.
func (w *worker) listen() {
	w.queue.OnReady(func() { w.show.logf("worker: ready, %d pushes at once", w.concurrency) })
	w.queue.OnError(func(err error) { w.show.logf("worker: error: %v", err) })
	w.queue.OnSucceeded(func(job *beequeue.Job, receipt json.RawMessage) {
		if w.verbose {
			w.show.logf("worker: job %s sent, receipt %s", job.ID, receipt)
		}
		w.show.status(w.tally.add(counts{sent: 1}))
	})
	w.queue.OnRetrying(func(job *beequeue.Job, err error) {
		w.show.logf("worker: job %s will be retried: %v", job.ID, err)
		w.show.status(w.tally.add(counts{retried: 1}))
	})
	w.queue.OnFailedForGood(func(job *beequeue.Job, err error) {
		w.show.logf("worker: job %s failed: %v", job.ID, err)
		change := counts{failed: 1}
		if errors.Is(err, errGone) {
			change.gone = 1
		}
		w.show.status(w.tally.add(change))
	})
}

// errGone fails a job at once, whatever retries it has left.
var errGone = fmt.Errorf("the device is gone: %w", beequeue.ErrNoRetry)

// push is the handler: it sends one push, and returns the gateway's receipt.
func (w *worker) push(ctx context.Context, job *beequeue.Job) (any, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(job.Data))
	if err != nil {
		return nil, err
	}
	response, err := w.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	// Read to its end, so that the connection is used again.
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	switch code := response.StatusCode; {
	case code == http.StatusOK:
		var receipt Receipt
		if err := json.Unmarshal(body, &receipt); err != nil {
			return nil, fmt.Errorf("read the gateway's receipt: %w", err)
		}
		return receipt, nil
	case code == http.StatusGone:
		return nil, errGone
	case code == http.StatusTooManyRequests:
		wait := retryAfter(response)
		if backoff := job.Options.Backoff; wait > backoff.Delay {
			job.Backoff(backoff.Strategy, wait)
		}
		return nil, fmt.Errorf("gateway: %s, retry after %v", response.Status, wait)
	case code < http.StatusInternalServerError:
		return nil, fmt.Errorf("gateway: %s: %w", response.Status, beequeue.ErrNoRetry) // the fault is ours
	default:
		return nil, fmt.Errorf("gateway: %s", response.Status)
	}
}

// retryAfter is how long the gateway wants to be left alone; zero if it does not
// say.
func retryAfter(response *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
