package redistest

import (
	"os"
	"os/exec"
	"syscall"
)

// isolate lets the process die with its parent and gives it a process group.
func isolate(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// killGroup also kills the children that Redis forks to write its files: they
// would go on writing into a directory that is being removed.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
