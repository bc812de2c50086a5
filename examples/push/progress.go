package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// console prints log lines and, below them, how far the pushes are: on a
// terminal as one line that changes, elsewhere as a line every now and then.
type console struct {
	mu     sync.Mutex
	out    io.Writer
	live   bool      // out is a terminal
	line   string    // the line that changes, while it is shown
	logged time.Time // when the status was last printed elsewhere
}

// statusInterval is the time between two status lines that stay.
const statusInterval = 1 * time.Second

func newConsole(out io.Writer) *console {
	return &console{out: out, live: isTerminal(out), logged: time.Now()}
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// erase goes back to the start of the line and empties it.
const erase = "\r\x1b[K"

// logf prints a line that stays.
func (c *console) logf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := ""
	if c.line != "" {
		before = erase
	}
	fmt.Fprintf(c.out, "%s%s %s\n%s", before, time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...), c.line)
}

// status shows how far the pushes are.
func (c *console) status(k counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live {
		c.line = k.String()
		fmt.Fprint(c.out, erase, c.line)
		return
	}
	if now := time.Now(); now.Sub(c.logged) >= statusInterval {
		c.logged = now
		fmt.Fprintf(c.out, "%s %v\n", now.Format("15:04:05.000"), k)
	}
}

// clear takes the line that changes away.
func (c *console) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line != "" {
		fmt.Fprint(c.out, erase)
		c.line = ""
	}
}

// counts are what became of pushes.
type counts struct {
	expected int // zero if nobody knows
	sent     int
	retried  int // tries that failed and were, or will be, repeated
	failed   int // for good
	gone     int // of those that failed, the ones whose device is gone
}

func (k counts) finished() int { return k.sent + k.failed }

func (k counts) String() string {
	of := ""
	if k.expected > 0 {
		of = fmt.Sprintf("%d of %d pushes done: ", k.finished(), k.expected)
	}
	return fmt.Sprintf("%s%d sent, %d retried, %d failed", of, k.sent, k.retried, k.failed)
}

// tally adds counts up. It is safe for use by several goroutines.
type tally struct {
	mu   sync.Mutex
	sum  counts
	done chan struct{} // closed when as many have finished as are expected
}

func newTally(expected int) *tally {
	return &tally{sum: counts{expected: expected}, done: make(chan struct{})}
}

// add counts one more event, and returns the sum.
func (t *tally) add(k counts) counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.sent += k.sent
	t.sum.retried += k.retried
	t.sum.failed += k.failed
	t.sum.gone += k.gone
	if k.finished() > 0 && t.sum.finished() == t.sum.expected {
		close(t.done)
	}
	return t.sum
}

// counts gives the sum.
func (t *tally) counts() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sum
}
