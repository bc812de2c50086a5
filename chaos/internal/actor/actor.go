// Package actor is what the producers and workers of the chaos harness have in
// common. Each is a process of its own, so that it can be killed, and writes what
// it does to a ledger, a file that outlives it. node/actor.js is the same for
// Node's bee-queue.
package actor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/gobeequeue/beequeue/internal/pulse"
)

// Roles.
const (
	Producer = "producer"
	Worker   = "worker"
)

// An Order is what a process is to do, the JSON of its only argument.
type Order struct {
	Role   string `json:"role"`
	URL    string `json:"url"`
	Queue  string `json:"queue"`
	Ledger string `json:"ledger"` // file
	Tally  string `json:"tally"`  // file that counts instead of the ledger; "" for none
	DNS    string `json:"dns"`    // address of the name server to ask; "" for the system's

	// Of workers.
	Concurrency int  `json:"concurrency"`
	Stall       int  `json:"stall"`     // the stall interval, in ms
	Grace       int  `json:"grace"`     // the time that handlers have to finish at the end, in ms
	MaxStalls   int  `json:"maxStalls"` // 0 for the default
	Remove      bool `json:"remove"`    // jobs that have succeeded
	Listen      bool `json:"listen"`    // to what is published of the jobs of all
	Log         bool `json:"log"`       // errors go where they go by default, and not to the ledger

	// Of producers.
	From     int   `json:"from"`     // number of the first job
	Count    int   `json:"count"`    // how many
	Open     bool  `json:"open"`     // so many at least, and on until SIGTERM; not for a Batch or a Tally
	Rate     int   `json:"rate"`     // saves a second; 0 is as fast as can be
	Lines    int   `json:"lines"`    // saves at once; 0 is one
	Batch    int   `json:"batch"`    // jobs to save by one call; 0 is one after the other
	Within   int   `json:"within"`   // the time that a save may take, in ms; 0 is ten seconds
	Again    bool  `json:"again"`    // saves that failed are made again, until they succeed
	Replicas int   `json:"replicas"` // that must have a job before its save succeeds
	Job      Job   `json:"job"`      // what all have in common
	Special  []Job `json:"special"`  // jobs unlike the others, by their numbers
}

// What a job's handler does.
const (
	Works = ""      // takes its time, or ends when its context does
	Late  = "late"  // takes its time, whatever its context says
	Kills = "kills" // kills its process
)

// A Job is the payload. Its number identifies it, whatever id it was saved under.
type Job struct {
	N    int    `json:"n"`
	Ms   int    `json:"ms,omitempty"` // how long its handler takes
	Does string `json:"does,omitempty"`
	Fill string `json:"fill,omitempty"` // makes it large
}

// What a ledger tells.
const (
	Ready   = "ready"   // connected
	Save    = "save"    // a save begins
	Saved   = "saved"   // and has succeeded
	Refused = "refused" // it has failed, and nothing is stored
	Unsure  = "unsure"  // it has failed, and it is not known whether the job is stored
	Start   = "start"   // a handler begins
	Cancel  = "cancel"  // its context ended
	End     = "end"     // it returns, and its job has succeeded as far as it knows
	Done    = "done"    // its success is recorded
	Heard   = "heard"   // so was published
	Error   = "error"   // what the library tells of errors
	Lost    = "lost"    // it tells that a job belongs to somebody else
	Stat    = "stat"    // goroutines and memory
	Starved = "starved" // the process could not run for so many milliseconds, which are its number
	Exit    = "exit"    // the process ends by itself
)

// An Entry is a line of a ledger.
type Entry struct {
	T    int64  `json:"t"` // nanoseconds since 1970
	What string `json:"e"`
	N    int    `json:"n"`
	ID   string `json:"id,omitempty"`
	Text string `json:"x,omitempty"`

	Goroutines  int    `json:"g,omitempty"`
	Heap        uint64 `json:"h,omitempty"` // bytes in use after a collection
	Connections int    `json:"c,omitempty"` // sockets
}

// Time is when the entry was written.
func (e Entry) Time() time.Time { return time.Unix(0, e.T) }

// A ledger takes entries, each with one write, so that none is lost by a kill.
type ledger struct {
	mu   sync.Mutex
	file *os.File
}

func (l *ledger) write(e Entry) {
	e.T = time.Now().UnixNano()
	line, err := json.Marshal(e)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil {
		panic(fmt.Errorf("ledger: %w", err))
	}
}

func (l *ledger) note(what string, n int, id, text string) {
	l.write(Entry{What: what, N: n, ID: id, Text: text})
}

// A Queue is a library under test.
type Queue interface {
	// Job makes a job; what it returns saves it, and may be called again.
	Job(payload []byte) func(ctx context.Context) (id string, err error)
	// SaveAll saves jobs in the library's own way of doing so.
	SaveAll(ctx context.Context, payloads [][]byte) []error
	// Stored tells that a save that failed may have stored its job all the same.
	Stored(err error) bool
	// Work processes jobs until ctx ends, and then lets handlers finish.
	Work(ctx context.Context, o Order, handle Handler, tell Tell) error
	Close()
}

// A Handler runs a job.
type Handler func(ctx context.Context, id string, payload []byte) error

// Tell takes what a library tells of its work: Done with a payload, Error or Lost
// with a text.
type Tell func(what string, payload []byte, id, text string)

// Open connects a library to a queue. It may take until Redis answers, or ctx ends.
type Open func(ctx context.Context, o Order) (Queue, error)

// Main is the whole of a process. It ends by SIGTERM (an open producer once it has saved
// its jobs, too), and when its standard input is closed: so it does not outlive the harness.
func Main(open Open) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		os.Exit(3)
	}()
	if err := run(ctx, open); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is left to defer
	}
}

// An actor is one process.
type actor struct {
	Order

	queue  Queue
	ledger ledger
	tally  *Tally
}

func run(ctx context.Context, open Open) (err error) {
	if len(os.Args) != 2 {
		return errors.New("want one argument, the order")
	}
	a := &actor{}
	if err := json.Unmarshal([]byte(os.Args[1]), &a.Order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if a.ledger.file, err = os.OpenFile(a.Ledger, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	if a.Tally != "" {
		if a.tally, err = OpenTally(a.Tally); err != nil {
			return err
		}
		defer a.report(ctx)()
	}
	if a.queue, err = open(ctx, a.Order); err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	a.ledger.note(Ready, 0, "", "")
	defer pulse.Start(200*time.Millisecond, func(delay time.Duration) {
		a.ledger.note(Starved, int(delay.Milliseconds()), "", "")
	})()
	switch a.Role {
	case Producer:
		err = a.produce(ctx)
	case Worker:
		err = a.work(ctx)
	default:
		err = fmt.Errorf("unknown role %q", a.Role)
	}
	a.queue.Close()
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.ledger.note(Exit, 0, "", text)
	return nil
}
