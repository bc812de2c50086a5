//go:build !linux

package main

import "syscall"

// detach does nothing: only on Linux does the kernel end a child whose parent died,
// and without that the child must stay in the terminal's process group.
func detach(*syscall.SysProcAttr) {}
