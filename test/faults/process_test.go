package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// What a worker process does with its jobs.
const (
	childObeys = "obeys" // runs until its context ends
	childLate  = "late"  // runs until it is told to finish, whatever its context says
	childKills = "kills" // kills itself at jobs that say so
)

// child is a worker in a process of its own. The process is this test binary, running only
// TestFaultChild.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu    sync.Mutex
	lines []string // what it has printed
}

// startChild starts a worker process on a queue.
func startChild(t *testing.T, does, url, queue string, stall time.Duration) *child {
	t.Helper()
	c := &child{t: t, ended: make(chan struct{})}
	c.cmd = exec.Command(os.Args[0], "-test.run=^TestFaultChild$", "-test.v=false")
	c.cmd.Env = append(os.Environ(), "BEEQUEUE_CHILD="+does, "BEEQUEUE_CHILD_URL="+url,
		"BEEQUEUE_CHILD_QUEUE="+queue, "BEEQUEUE_CHILD_STALL="+stall.String())
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdin, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.ended)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			c.mu.Lock()
			c.lines = append(c.lines, scanner.Text())
			c.mu.Unlock()
		}
		_ = c.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
		_ = c.cmd.Process.Kill()
		<-c.ended
	})
	return c
}

// prints waits for a line that begins with prefix, and gives the rest of it.
func (c *child) prints(prefix string) string {
	c.t.Helper()
	var rest string
	queuetest.Await(c.t, "the worker process to print "+prefix, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, line := range c.lines {
			var found bool
			if rest, found = strings.CutPrefix(line, prefix); found {
				return true
			}
		}
		return false
	})
	return rest
}

func (c *child) signal(s os.Signal) {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(s))
}

// TestFaultChild is the worker process and not a test.
func TestFaultChild(t *testing.T) {
	does := os.Getenv("BEEQUEUE_CHILD")
	if does == "" {
		return // it runs only as a worker process of other tests
	}
	stall, err := time.ParseDuration(os.Getenv("BEEQUEUE_CHILD_STALL"))
	require.NoError(t, err)
	client, err := beequeue.Dial(context.Background(), os.Getenv("BEEQUEUE_CHILD_URL"))
	require.NoError(t, err)
	q, err := beequeue.New(client, os.Getenv("BEEQUEUE_CHILD_QUEUE"), beequeue.Config{StallInterval: stall, MaxStalls: 2})
	require.NoError(t, err)
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(os.Stdout, format+"\n", args...)
	}
	q.OnError(func(err error) { say("error: %t %v", errors.Is(err, beequeue.ErrOwnershipLost), err) })
	q.OnSucceeded(func(job *beequeue.Job, _ json.RawMessage) { say("recorded: %s", job.ID) })
	finish := bufio.NewScanner(os.Stdin)
	_ = q.Process(context.Background(), 2, func(ctx context.Context, job *beequeue.Job) (any, error) {
		say("start: %s", job.ID)
		switch does {
		case childObeys:
			<-ctx.Done()
			say("cause: %t", errors.Is(context.Cause(ctx), beequeue.ErrOwnershipLost))
			return nil, context.Cause(ctx)
		case childLate:
			finish.Scan()
			return "late", nil
		}
		var data struct{ Kill bool }
		if err := job.Decode(&data); err != nil {
			return nil, err
		}
		if data.Kill {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			<-ctx.Done()
		}
		return "done", nil
	})
}
