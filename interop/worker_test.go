package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A goQueue is the queue on Go's side. An error that goes to OnError fails the
// test, unless the test expects it.
type goQueue struct {
	*beequeue.Queue
	errs chan error
}

func (s *site) goQueue(t *testing.T, change ...func(*beequeue.Config)) *goQueue {
	t.Helper()
	config := s.config
	for _, f := range change {
		f(&config)
	}
	q, err := beequeue.New(s.client, s.queue, config)
	require.NoError(t, err)
	require.Equal(t, s.keys, q.KeyPrefix())
	g := &goQueue{Queue: q, errs: make(chan error, 1000)}
	began := time.Now()
	q.OnError(func(err error) {
		if !lateBeats.Excuses(err, began) {
			g.errs <- err
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, q.Close(context.Background()))
		for len(g.errs) > 0 {
			assert.NoError(t, <-g.errs, "error of a Go queue")
		}
	})
	return g
}

// expectError waits for an error to go to OnError.
func (g *goQueue) expectError(t *testing.T, target error) {
	t.Helper()
	require.ErrorIs(t, receive(t, g.errs, "error %q", target), target)
}

// expectErrorAs waits for an error of a type to go to OnError.
func (g *goQueue) expectErrorAs(t *testing.T, target any) {
	t.Helper()
	require.ErrorAs(t, receive(t, g.errs, "error %T", target), target)
}

// forgive drops the errors so far.
func (g *goQueue) forgive() {
	for len(g.errs) > 0 {
		<-g.errs
	}
}

// work is a Process under way.
type work struct{ stop func() }

// start processes jobs until the test ends, or stop is called.
func (g *goQueue) start(t *testing.T, concurrency int, handler beequeue.Handler) *work {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Process(ctx, concurrency, handler) }()
	w := &work{stop: sync.OnceFunc(func() {
		t.Helper()
		cancel()
		assert.NoError(t, receive(t, ended, "the end of Process"))
	})}
	t.Cleanup(w.stop)
	return w
}

// save saves a job and returns it.
func save(t *testing.T, job *beequeue.Job) *beequeue.Job {
	t.Helper()
	require.NoError(t, job.Save(t.Context()))
	return job
}

// get looks a job up.
func (g *goQueue) get(t *testing.T, id string) *beequeue.Job {
	t.Helper()
	job, err := g.GetJob(t.Context(), id)
	require.NoError(t, err)
	return job
}

// wait waits for a job on another goroutine.
func wait(t *testing.T, job *beequeue.Job) <-chan outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	done := make(chan outcome, 1)
	go func() {
		result, err := job.Wait(ctx)
		done <- outcome{string(result), err}
	}()
	return done
}

// listen waits like wait, for a job that is not finished, on a queue of its own.
// When it returns, that hears of events: so the result will come with one.
func (s *site) listen(t *testing.T, id string) <-chan outcome {
	t.Helper()
	before := s.subscribers(t, "events")
	done := wait(t, s.goQueue(t).get(t, id))
	s.awaitSubscribers(t, "events", before+1)
	return done
}

// outcome is what Wait returned.
type outcome struct {
	result string
	err    error
}

// message gives the message of the FailedError that a Wait ended with.
func (o outcome) message(t *testing.T) string {
	t.Helper()
	var failed *beequeue.FailedError
	require.ErrorAs(t, o.err, &failed)
	return failed.Message
}

// echo is a handler whose result is the job's data.
func echo(_ context.Context, job *beequeue.Job) (any, error) { return job.Data, nil }

// unwanted is a handler for workers that should get no jobs.
func unwanted(t *testing.T) beequeue.Handler {
	t.Helper()
	return func(_ context.Context, job *beequeue.Job) (any, error) {
		assert.Fail(t, "Go got a job", job.ID)
		return nil, errors.New("unwanted")
	}
}

func stallInterval(d time.Duration) func(*beequeue.Config) {
	return func(c *beequeue.Config) { c.StallInterval = d }
}

// workerEnv has the test program be a worker instead, one that a test can kill.
// It holds a workerOrder.
const workerEnv = "BEEQUEUE_INTEROP_WORKER"

type workerOrder struct {
	URL           string
	Queue         string
	Prefix        string
	PlainKeys     bool
	StallInterval time.Duration
}

// runWorker is a worker whose handlers return when a line comes on stdin. It
// writes "start <id>" when one begins, "end <id>" when its job is recorded, and
// "error <text>" for what goes to OnError.
func runWorker(env string) error {
	var order workerOrder
	if err := json.Unmarshal([]byte(env), &order); err != nil {
		return err
	}
	client, err := beequeue.Dial(context.Background(), order.URL)
	if err != nil {
		return err
	}
	defer client.Close()
	q, err := beequeue.New(client, order.Queue, beequeue.Config{
		Prefix: order.Prefix, PlainKeys: order.PlainKeys, StallInterval: order.StallInterval,
	})
	if err != nil {
		return err
	}
	say := func(word string, value any) { fmt.Fprintln(os.Stdout, word, value) }
	q.OnError(func(err error) { say("error", err) })
	q.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { say("end", job.ID) })
	lines := bufio.NewScanner(os.Stdin)
	return q.Process(context.Background(), 1, func(_ context.Context, job *beequeue.Job) (any, error) {
		say("start", job.ID)
		if !lines.Scan() {
			os.Exit(0) // the test is gone
		}
		return lines.Text(), nil
	})
}

// goProcess is a worker in a process of its own.
type goProcess struct {
	cmd   *exec.Cmd
	tell  func(line string)
	heard chan string
}

func (s *site) startProcess(t *testing.T, stall time.Duration) *goProcess {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), workerEnv+"="+text(t, workerOrder{
		URL: "redis://" + s.addr, Queue: s.queue, Prefix: s.config.Prefix, PlainKeys: s.config.PlainKeys, StallInterval: stall,
	}))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &goProcess{cmd: cmd, heard: make(chan string, 1000)}
	p.tell = func(line string) { _, _ = fmt.Fprintln(stdin, line) }
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.heard <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	return p
}

// await waits for a line with one of some texts in it, and returns that line. A
// worker that was stopped may have other errors to tell of first.
func (p *goProcess) await(t *testing.T, parts ...string) string {
	t.Helper()
	for {
		line := receive(t, p.heard, "%q", parts)
		for _, part := range parts {
			if strings.Contains(line, part) {
				return line
			}
		}
	}
}

func (p *goProcess) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(s))
}
