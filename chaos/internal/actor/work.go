package actor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// work processes jobs until ctx ends.
func (a *actor) work(ctx context.Context) error {
	return a.queue.Work(ctx, a.Order, a.handle, func(what string, payload []byte, id, text string) {
		var job Job
		if payload != nil && a.tally == nil {
			_ = json.Unmarshal(payload, &job) // the handler has done so
		}
		a.note(what, job.N, id, text)
	})
}

func (a *actor) handle(ctx context.Context, id string, payload []byte) error {
	var job Job
	if err := json.Unmarshal(payload, &job); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	a.note(Start, job.N, id, "")
	if job.Does == Kills {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	if job.Ms > 0 {
		if err := a.busy(ctx, job, id); err != nil {
			return err
		}
	}
	a.note(End, job.N, id, "")
	return nil
}

// busy takes the job's time: the time in which the process runs, not the time in which
// it is stopped.
func (a *actor) busy(ctx context.Context, job Job, id string) error {
	const step = 10 * time.Millisecond
	length := time.Duration(job.Ms) * time.Millisecond
	for left := length; left > 0; left -= step {
		if sleep(ctx, min(left, step)) {
			continue
		}
		a.note(Cancel, job.N, id, fmt.Sprint(context.Cause(ctx)))
		if job.Does != Late {
			return ctx.Err()
		}
		sleep(context.WithoutCancel(ctx), left)
		break
	}
	return nil
}

// report writes down, every ten seconds, what the process holds. What it returns
// ends that.
func (a *actor) report(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sleep(ctx, 10*time.Second) {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			a.ledger.write(Entry{What: Stat, Goroutines: runtime.NumGoroutine(), Heap: m.HeapAlloc, Connections: connections()})
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// connections counts the process's sockets.
func connections() int {
	n := 0
	files, _ := filepath.Glob("/proc/self/fd/*")
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}
