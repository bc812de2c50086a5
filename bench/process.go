package main

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
	"time"

	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

// process is a measured process, seen from outside.
type process struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	stderr  strings.Builder
}

// start starts a process for the order, and returns when it is ready.
func (b *bench) start(ctx context.Context, o peer.Order) (*process, error) {
	p := &process{command: b.programs.command(ctx, o.Peer)}
	p.command.Stderr = &p.stderr
	p.command.WaitDelay = 5 * time.Second
	var err error
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Peer, err)
	}
	line, err := json.Marshal(o)
	if err == nil {
		err = p.say(string(line))
	}
	if err == nil {
		_, err = p.hear()
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("%s, %s: %w", o.Peer, o.Task, err)
	}
	return p, nil
}

func (p *process) say(line string) error {
	_, err := io.WriteString(p.in, line+"\n")
	return err
}

func (p *process) hear() (peer.Report, error) {
	var r peer.Report
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.kill() // it has ended, and now what it wrote is complete
		return r, fmt.Errorf("the process ended: %w\n%s", err, p.stderr.String())
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("the process wrote %q: %w", line, err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// perform lets the process do its task.
func (p *process) perform() (peer.Report, error) {
	if err := p.say("go"); err != nil {
		return peer.Report{}, err
	}
	return p.hear()
}

// end lets the process close, and gives the most memory it had, in MiB.
func (p *process) end() (memory float64, err error) {
	memory = p.memory()
	if err := p.say("end"); err != nil {
		p.kill()
		return memory, err
	}
	_ = p.in.Close()
	if err := p.command.Wait(); err != nil {
		return memory, fmt.Errorf("the process ended with %w\n%s", err, p.stderr.String())
	}
	return memory, nil
}

func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// memory is the process's largest resident set. What the operating system adds up
// at a process's end would include this program's own, of before the exec.
func (p *process) memory() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0 // no Linux
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return number(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB"))) / 1024
		}
	}
	return 0
}
