package redistest

import (
	"os/exec"
	"runtime"
)

// process is a started command that is always reaped.
type process struct {
	command *exec.Cmd
	exited  chan struct{} // closed once the process is gone and reaped
}

func startProcess(command *exec.Cmd) (*process, error) {
	isolate(command)
	p := &process{command: command, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the parent death signal when the thread that forked
		// ends, not the process. So this thread lives as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err != nil {
			return
		}
		_ = command.Wait() // a killed server has no exit status worth knowing
		close(p.exited)
	}()
	return p, <-started
}

func (p *process) pid() int { return p.command.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill returns once the process is gone.
func (p *process) kill() {
	if p.running() {
		_ = killGroup(p.command.Process) // fails only when the process has ended
	}
	<-p.exited
}
