package beequeuetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gobeequeue/beequeue"
)

// Enqueued returns the jobs of a queue that are still to be run, in the order in
// which one worker would run them: those waiting, the next one first, and then
// those delayed, by due time. The queue may be on any server.
func Enqueued(tb testing.TB, q *beequeue.Queue) []*beequeue.Job {
	tb.Helper()
	waiting, delayed := enqueued(tb, q)
	return append(waiting, delayed...)
}

func enqueued(tb testing.TB, q *beequeue.Queue) (waiting, delayed []*beequeue.Job) {
	tb.Helper()
	all := beequeue.Page{Size: math.MaxInt32}
	waiting, err := q.GetJobs(context.Background(), beequeue.StateWaiting, all)
	if err != nil {
		tb.Fatalf("beequeuetest: %v", err)
	}
	delayed, err = q.GetJobs(context.Background(), beequeue.StateDelayed, all)
	if err != nil {
		tb.Fatalf("beequeuetest: %v", err)
	}
	slices.Reverse(waiting)
	return waiting, delayed
}

// RequireEnqueued ends the test unless n jobs are still to be run, and returns
// them as Enqueued does. What a job was saved with is in its fields: Data,
// Options.Retries, Options.Timeout, Options.DelayUntil, Options.Backoff.
func RequireEnqueued(tb testing.TB, q *beequeue.Queue, n int) []*beequeue.Job {
	tb.Helper()
	waiting, delayed := enqueued(tb, q)
	if got := len(waiting) + len(delayed); got != n {
		tb.Fatalf("beequeuetest: queue %q: want %d jobs enqueued, got %d%s", q.Name(), n, got, list(waiting, delayed))
	}
	return append(waiting, delayed...)
}

// RequireNothingEnqueued ends the test if any job is still to be run.
func RequireNothingEnqueued(tb testing.TB, q *beequeue.Queue) {
	tb.Helper()
	RequireEnqueued(tb, q, 0)
}

// RequireEnqueuedData ends the test unless the jobs that are still to be run
// have the data in want, in the order of Enqueued, and returns the jobs.
//
// Data is compared as encoding/json sees it: a job's data is unmarshalled into a
// T, and must have no fields that T does not have; then the JSON of both is
// compared. What JSON leaves out, such as unexported fields, plays no part.
func RequireEnqueuedData[T any](tb testing.TB, q *beequeue.Queue, want ...T) []*beequeue.Job {
	tb.Helper()
	jobs := Enqueued(tb, q)
	got := make([]T, len(jobs))
	for i, job := range jobs {
		decoder := json.NewDecoder(bytes.NewReader(job.Data))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&got[i]); err != nil {
			tb.Fatalf("beequeuetest: queue %q: data of job %q is no %s: %v: %s",
				q.Name(), job.ID, strings.TrimPrefix(fmt.Sprintf("%T", new(T)), "*"), err, excerpt(job.Data))
		}
	}
	// What becomes of data on the way to a handler becomes of want too.
	raw, err := json.Marshal(want)
	if err != nil {
		tb.Fatalf("beequeuetest: marshal want: %v", err)
	}
	var received []T
	if err := json.Unmarshal(raw, &received); err != nil {
		tb.Fatalf("beequeuetest: unmarshal want: %v", err)
	}
	if d := diff(lines(tb, received), lines(tb, got)); d != "" {
		tb.Fatalf("beequeuetest: queue %q: data of the jobs enqueued differs (-want +got):\n%s", q.Name(), d)
	}
	return jobs
}

// lines gives values as indented JSON.
func lines[T any](tb testing.TB, values []T) []string {
	tb.Helper()
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	for _, v := range values {
		if err := encoder.Encode(v); err != nil {
			tb.Fatalf("beequeuetest: marshal data: %v", err)
		}
	}
	return slices.Collect(strings.Lines(b.String()))
}

// list describes jobs for people, a line for each.
func list(waiting, delayed []*beequeue.Job) string {
	const most = 20
	var b strings.Builder
	for i, job := range slices.Concat(waiting, delayed) {
		state := beequeue.StateWaiting
		if i >= len(waiting) {
			state = beequeue.StateDelayed
		}
		if i == most {
			fmt.Fprintf(&b, "\n  and %d more", len(waiting)+len(delayed)-most)
			break
		}
		fmt.Fprintf(&b, "\n  %s job %q: %s", state, job.ID, excerpt(job.Data))
	}
	return b.String()
}

// excerpt shows the beginning of data that may be large.
func excerpt(data []byte) string {
	const most = 200
	if len(data) > most {
		return strings.ToValidUTF8(string(data[:most]), "?") + "…"
	}
	return string(data)
}
