package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
)

// A process is a producer or a worker.
type process struct {
	name   string
	order  actor.Order
	stderr lines

	command *exec.Cmd
	stdin   io.Closer // keeps it alive
	done    chan struct{}
	end     time.Time // once done is closed
	killed  bool      // by us
	told    bool      // to end, or killed

	ledger *os.File
	rest   []byte // of a line that is not complete
	seen   []actor.Entry
	counts map[string]int
}

func startProcess(command func() *exec.Cmd, o actor.Order, name string) (*process, error) {
	p := &process{name: name, order: o, command: command(), done: make(chan struct{}), counts: make(map[string]int)}
	order, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if p.ledger, err = os.OpenFile(o.Ledger, os.O_CREATE|os.O_RDONLY, 0o600); err != nil {
		return nil, err
	}
	p.command.Args = append(p.command.Args, string(order))
	p.command.Stderr = &p.stderr
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start a %s: %w", name, err)
	}
	go func() {
		_ = p.command.Wait() // how it ended is in the ledger
		p.end = time.Now()
		close(p.done)
	}()
	return p, nil
}

func (p *process) signal(s syscall.Signal) {
	p.told = p.told || s == syscall.SIGTERM || s == syscall.SIGKILL
	_ = p.command.Process.Signal(s)
}

// kill kills it, even if it is stopped, and waits for its end.
func (p *process) kill() {
	p.killed = true
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// entries reads what the ledger has by now.
func (p *process) entries() []actor.Entry {
	more, err := io.ReadAll(p.ledger)
	if err != nil {
		panic(fmt.Errorf("read a ledger: %w", err))
	}
	text := string(append(p.rest, more...))
	end := strings.LastIndexByte(text, '\n') + 1
	for line := range strings.Lines(text[:end]) {
		p.add(line)
	}
	p.rest = []byte(text[end:])
	return p.seen
}

func (p *process) add(line string) {
	var e actor.Entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		panic(fmt.Errorf("a ledger has %q: %w", line, err))
	}
	p.seen = append(p.seen, e)
	p.counts[e.What]++
}

// count counts entries of a kind.
func (p *process) count(what string) int {
	p.entries()
	return p.counts[what]
}

// first is when something happened for the first time after a moment; zero if it has not.
func (p *process) first(after time.Time, what string) time.Time {
	for _, e := range p.entries() {
		if e.What == what && e.Time().After(after) {
			return e.Time()
		}
	}
	return time.Time{}
}

// open are the jobs that it has started and not ended, and their ids.
func (p *process) open() map[int]string {
	jobs := make(map[int]string)
	for _, e := range p.entries() {
		switch e.What {
		case actor.Start:
			jobs[e.N] = e.ID
		case actor.End:
			delete(jobs, e.N)
		}
	}
	return jobs
}

// cpu is the processor time that it has used.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the name may have spaces
	fields := strings.Fields(after)
	ticks := 0
	for _, i := range []int{11, 12} { // utime, stime
		if i < len(fields) {
			n, _ := strconv.Atoi(fields[i])
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

// lines is what a process writes to standard error.
type lines struct {
	mu  sync.Mutex
	all []string
	cut string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	parts := strings.Split(l.cut+string(p), "\n")
	l.all, l.cut = append(l.all, parts[:len(parts)-1]...), parts[len(parts)-1]
	return len(p), nil
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

func (l *lines) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all[max(0, len(l.all)-15):], "\n")
}

// headline is what to show of it in a table: without the stack, and not for ever.
func (l *lines) headline() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, "rror") { // "error:" of Go, "AbortError:" of Node
			return fmt.Sprintf("%.200s", line)
		}
	}
	return fmt.Sprintf("%.200s", strings.Join(l.all[:min(len(l.all), 1)], ""))
}
