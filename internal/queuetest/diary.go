package queuetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/gobeequeue/beequeue"
)

// A Diary notes what callbacks hear.
type Diary struct {
	mu    sync.Mutex
	lines []string
	news  chan struct{}
}

// NewDiary makes an empty diary.
func NewDiary() *Diary { return &Diary{news: make(chan struct{}, 1)} }

// Note writes a line.
func (d *Diary) Note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// Read gives all lines.
func (d *Diary) Read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// Await waits until the diary has that many lines, and gives them.
func (d *Diary) Await(t *testing.T, n int) []string {
	t.Helper()
	for lines := d.Read(); ; lines = d.Read() {
		if len(lines) >= n {
			return lines
		}
		Receive(t, d.news, fmt.Sprintf("%d events, there are %q", n, lines))
	}
}

// ListenLocally notes every local event.
func (d *Diary) ListenLocally(q *beequeue.Queue) {
	q.OnReady(func() { d.Note("ready") })
	q.OnSucceeded(func(job *beequeue.Job, result json.RawMessage) {
		d.Note("succeeded %s %s %s", job.ID, result, job.Status)
	})
	q.OnRetrying(func(job *beequeue.Job, err error) { d.Note("retrying %s %v %s", job.ID, err, job.Status) })
	q.OnFailed(func(job *beequeue.Job, err error) { d.Note("failed %s %v %s", job.ID, err, job.Status) })
	q.OnFailedForGood(func(job *beequeue.Job, err error) { d.Note("fatal %s %v %s", job.ID, err, job.Status) })
	q.OnStalled(func(id string) { d.Note("stalled %s", id) })
	q.OnRaised(func(n int) { d.Note("raised %d", n) })
}

// Listen notes every event of the queue, whoever caused it.
func (d *Diary) Listen(q *beequeue.Queue) {
	q.OnJobSucceeded(func(id string, result json.RawMessage) { d.Note("succeeded %s %s", id, result) })
	q.OnJobRetrying(func(id string, err error) { d.Note("retrying %s %v", id, err) })
	q.OnJobFailed(func(id string, err error) { d.Note("failed %s %v", id, err) })
	q.OnJobProgress(func(id string, progress json.RawMessage) { d.Note("progress %s %s", id, progress) })
}
