//go:build !linux

package redistest

import (
	"os"
	"os/exec"
)

// isolate does nothing: only on Linux does the kernel kill a child whose parent
// died, and without that the child must stay in the terminal's process group.
func isolate(*exec.Cmd) {}

func killGroup(p *os.Process) error { return p.Kill() }
