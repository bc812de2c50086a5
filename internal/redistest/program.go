package redistest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

// Program lets a program that is no test start servers: it calls f with a
// testing.TB that can do what this package needs, Cleanup, TempDir, Logf and
// failing, and then cleans up what f started, the latest first. Failing ends f,
// and is Program's error; it must happen on f's goroutine. Logs go to standard
// error.
func Program(name string, f func(tb testing.TB) error) (err error) {
	p := &program{name: name}
	defer func() {
		value := recover()
		for _, clean := range slices.Backward(p.cleanups) {
			clean()
		}
		if failed, ok := value.(programError); ok {
			err = errors.Join(failed.error, err)
		} else if value != nil {
			panic(value)
		}
	}()
	return f(p)
}

type program struct {
	testing.TB // nil: what is not below is not used

	name     string
	cleanups []func()
}

type programError struct{ error }

func (p *program) Helper()          {}
func (p *program) Name() string     { return p.name }
func (p *program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }
func (p *program) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// Errorf ends it as well: there is nothing that could go on.
func (p *program) Errorf(format string, args ...any) { p.Fatalf(format, args...) }

func (p *program) Fatalf(format string, args ...any) {
	panic(programError{fmt.Errorf(format, args...)})
}

func (p *program) Skipf(format string, args ...any) { p.Fatalf(format, args...) }

func (p *program) TempDir() string {
	dir, err := os.MkdirTemp("", "beequeue-"+p.name+"-")
	if err != nil {
		p.Fatalf("redistest: %v", err)
	}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
