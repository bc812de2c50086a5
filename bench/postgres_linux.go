package main

import "syscall"

// detach lets PostgreSQL end with this program, at once, and keeps the terminal's
// signals from it.
func detach(a *syscall.SysProcAttr) { a.Pdeathsig, a.Setpgid = syscall.SIGQUIT, true }
