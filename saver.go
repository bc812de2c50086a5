package beequeue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gobeequeue/beequeue/internal/store"
	"github.com/gobeequeue/beequeue/internal/wire"
)

// saver gathers jobs and saves many of them in one call. The jobs wait in a line, as
// items. A flusher goroutine takes items off the line, saves them in one call, and
// repeats this until the line is empty. Each lane in use has one flusher.
type saver struct {
	q *Queue

	mu      sync.Mutex
	line    []*saveItem   // items not sent yet, in order
	idle    []*store.Lane // lanes without a flusher
	stopped bool          // Close has begun, and the line takes no more items
	lastErr error         // why a call in flight has no reply yet

	timers   sync.Pool // *time.Timer, for callers without a deadline
	flushers sync.WaitGroup
	life     context.Context //nolint:containedctx // ends calls that nobody waits for any more
	endLife  context.CancelCauseFunc
}

// saveLanes is the number of save calls of a queue that may be in flight at once. More
// than two gain nothing: while two are in flight, jobs gather for the next. Gathered
// jobs cost Redis half the CPU time that a call for each job does, as measured.
const saveLanes = 2

// A call takes at most saveMost jobs. It takes no further job once its records have
// saveBytes bytes.
const (
	saveMost  = 1000
	saveBytes = 1 << 18
)

// saveItem is one job that is being saved.
type saveItem struct {
	job     *Job
	before  offset         // among the job ends heard before the save
	item    store.SaveItem // as the call takes it
	group   *saveGroup     // of the caller who waits for the item
	sentFor *saveGroup     // the group at the time of the call
	sent    bool           // the item is, or was, part of a call
	settled bool           // newID and err are final
	newID   string         // the automatic id, or "" if SetID gave one
	err     error
}

// saveGroup lets a caller wait for several items. The saver's lock guards it.
type saveGroup struct {
	open     int           // items not settled
	inFlight int           // items in the call in flight
	done     chan struct{} // closed when no item is open
}

// newSaveGroup returns a group of n items.
func newSaveGroup(n int) *saveGroup {
	g := &saveGroup{open: n, done: make(chan struct{})}
	if n == 0 {
		close(g.done)
	}
	return g
}

// saveAlone is an item and its group in one allocation, for a Save of one job.
type saveAlone struct {
	item  saveItem
	group saveGroup
}

// countDown notes that n items are settled. The caller holds the saver's lock.
func (g *saveGroup) countDown(n int) {
	if n == 0 {
		return
	}
	if g.open -= n; g.open == 0 {
		close(g.done)
	}
}

// settle makes the item's outcome final. The caller holds the saver's lock.
func (i *saveItem) settle(err error) {
	i.settled, i.err = true, err
	i.group.countDown(1)
}

func (s *saver) init(q *Queue) {
	s.q = q
	s.timers.New = func() any { return time.NewTimer(time.Hour) }
	s.life, s.endLife = context.WithCancelCause(context.Background())
	for i := range saveLanes {
		l := store.NewLane(q.token, "save"+strconv.Itoa(i), nil)
		s.idle = append(s.idle, &l)
	}
}

// saveOne saves one job. Its error is the caller's to wrap.
func (s *saver) saveOne(ctx context.Context, j *Job) error {
	if ctx.Err() != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return notBegun(ctx, j)
	}
	one := &saveAlone{group: saveGroup{open: 1, done: make(chan struct{})}}
	if err := s.fill(&one.item, j, &one.group); err != nil {
		return err
	}
	s.mu.Lock()
	item := s.add(&one.item) //nolint:contextcheck // a call serves many callers, and outlives any of them
	s.mu.Unlock()
	return s.result(item, s.wait(ctx, &one.group))
}

// save saves jobs. It returns an error for each job that is not known to be saved.
func (s *saver) save(ctx context.Context, jobs []*Job) map[*Job]error {
	failed := make(map[*Job]error)
	if ctx.Err() != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, j := range jobs {
			failed[j] = notBegun(ctx, j)
		}
		return failed
	}
	group := newSaveGroup(len(jobs))
	items := s.submit(jobs, group, failed) //nolint:contextcheck // a call serves many callers, and outlives any of them
	cause := s.wait(ctx, group)
	for _, item := range items {
		if err := s.result(item, cause); err != nil {
			failed[item.job] = err
		}
	}
	return failed
}

// notBegun returns the error of a Save whose context had ended before it began. The
// caller holds the saver's lock.
func notBegun(ctx context.Context, j *Job) error {
	if j != nil && j.save != nil { // an earlier Save may have stored it
		return fmt.Errorf("%w: %w", ErrUncertain, context.Cause(ctx))
	}
	return fmt.Errorf("not saved: %w", context.Cause(ctx))
}

// submitMost is the number of jobs of a SaveAll that get in line at a time. The first are
// on their way to Redis while the next are encoded.
const submitMost = 100

// submit puts jobs in the line and returns their items. Jobs that cannot be saved at all
// go to failed instead.
func (s *saver) submit(jobs []*Job, group *saveGroup, failed map[*Job]error) []*saveItem {
	room := make([]saveItem, len(jobs))
	items := make([]*saveItem, 0, len(jobs))
	for first := 0; first < len(jobs); first += submitMost {
		chunk := jobs[first:min(first+submitMost, len(jobs))]
		begun := len(items)
		for i, j := range chunk {
			if err := s.fill(&room[first+i], j, group); err != nil {
				failed[j] = err
				continue
			}
			items = append(items, &room[first+i])
		}
		s.mu.Lock()
		group.countDown(len(chunk) - (len(items) - begun))
		for i, item := range items[begun:] {
			items[begun+i] = s.add(item)
		}
		s.mu.Unlock()
	}
	return items
}

// fill makes the item of a job, or returns why the job cannot be saved at all.
func (s *saver) fill(item *saveItem, j *Job, group *saveGroup) error {
	if err := s.refuse(j); err != nil {
		return err
	}
	item.job, item.item.ID, item.group = j, j.ID, group
	item.before = s.q.subscriber.recent.offset()
	item.item.Record = j.encode()
	if due := j.Options.DelayUntil; !due.IsZero() && due.After(time.Now()) {
		item.item.Due = strconv.FormatInt(wire.DueMillis(due), 10)
	}
	return nil
}

// refuse returns why a job cannot be saved at all, or nil.
func (s *saver) refuse(j *Job) error {
	config := &s.q.config
	switch {
	case j == nil:
		return errors.New("job is nil")
	case j.err != nil:
		return j.err
	case j.queue == nil:
		return errors.New("job was not made by CreateJob")
	case j.queue != s.q:
		return fmt.Errorf("job belongs to queue %q", j.queue.name)
	case config.MaxData > 0 && len(j.Data) > config.MaxData:
		return fmt.Errorf("%w: %d bytes, of at most %d", ErrDataTooLarge, len(j.Data), config.MaxData)
	case config.MaxID > 0 && len(j.ID) > config.MaxID:
		return fmt.Errorf("%w: %d bytes, of at most %d", ErrIDTooLong, len(j.ID), config.MaxID)
	case !wire.Valid(j.Data):
		return fmt.Errorf("data is not JSON: %s", wire.Excerpt(j.Data))
	case len(j.Progress) > 0 && !wire.Valid(j.Progress):
		return fmt.Errorf("progress is not JSON: %s", wire.Excerpt(j.Progress))
	}
	return nil
}

// add puts an item in the line, and starts a flusher if a lane is idle. If the outcome
// of an earlier Save of the job is not known yet, add returns that Save's item instead.
// The caller holds the lock.
func (s *saver) add(item *saveItem) *saveItem {
	if before := item.job.save; before != nil {
		if before.settled || before.group == item.group { // the same job twice
			item.group.countDown(1)
		}
		before.group = item.group
		return before
	}
	if s.stopped {
		item.settle(ErrClosed)
		return item
	}
	item.job.save = item
	s.line = append(s.line, item)
	if n := len(s.idle); n > 0 {
		l := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.flushers.Add(1)
		go s.flush(l)
	}
	return item
}

// flush saves the items of the line until none is left. Then its lane is idle again.
func (s *saver) flush(l *store.Lane) {
	defer s.flushers.Done()
	for {
		batch := s.take(l)
		if batch == nil {
			return
		}
		now := time.Now()
		renew := now.Sub(l.Renewed) > store.Renewal || s.q.config.SaveReplicas > 0
		item := func(i int) *store.SaveItem { return &batch[i].item }
		call := store.PrepareSave(l, len(batch), item, renew, s.q.config.MaxWaiting)
		// Not a caller's context, because callers come and go while the call is repeated.
		ctx, cancel := context.WithTimeout(s.life, store.CallRetention/2)
		replies, err := s.q.store.Save(ctx, &call, s.noteErr)
		for wait := (store.Pause{}); errors.Is(err, ErrUncertain) && store.Sleep(ctx, wait.Next()); {
			// The call may have run. With another number it would store the jobs twice.
			call.Reached = true
			replies, err = s.q.store.Save(ctx, &call, s.noteErr)
		}
		cancel()
		call.Forget()
		if err == nil && renew {
			l.Renewed = now
		}
		s.answer(batch, replies, err)
		runtime.Gosched() // lets callers who save one job after another join the next call
	}
}

// take returns the next items of the line, for one call. When there are none, it returns
// nil and marks the lane idle. It stops at an item whose group is in a call in flight,
// because a group's calls must follow each other to keep the order of its jobs. The
// flusher of that call goes on with the line.
func (s *saver) take(l *store.Lane) []*saveItem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		for _, item := range s.line {
			item.settle(ErrClosed)
		}
		s.line = nil
	}
	n, size := 0, 0
	for n < len(s.line) && n < saveMost && size < saveBytes && s.line[n].group.inFlight == 0 {
		size += len(s.line[n].item.Record)
		n++
	}
	if n == 0 {
		s.idle = append(s.idle, l)
		return nil
	}
	batch := s.line[:n:n]
	for _, item := range batch {
		item.sent, item.sentFor = true, item.group
		item.sentFor.inFlight++
	}
	if s.line = s.line[n:]; len(s.line) == 0 {
		s.line = nil // frees the array
	}
	return batch
}

// noteErr keeps why a call has to be repeated, for callers who give up on it.
func (s *saver) noteErr(err error) {
	s.mu.Lock()
	s.lastErr = err
	s.mu.Unlock()
}

// answer settles the items of a call: all with err, or each by its reply.
func (s *saver) answer(batch []*saveItem, replies []store.SaveReply, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastErr = nil
	for i, item := range batch {
		item.sentFor.inFlight--
		switch {
		case err != nil:
			item.settle(err)
		case replies[i].Duplicate:
			item.settle(ErrDuplicateID)
		case replies[i].Full:
			item.settle(fmt.Errorf("%w: at most %d", ErrQueueFull, s.q.config.MaxWaiting))
		default:
			item.newID = replies[i].ID
			item.settle(nil)
		}
	}
}

// wait returns nil when all items of the group are settled. It gives up when ctx ends
// or, if ctx has no deadline, after Config.CallTimeout. Then the items that were not sent
// leave the line, and the cause is returned.
func (s *saver) wait(ctx context.Context, group *saveGroup) (cause error) {
	var limit <-chan time.Time
	if _, ok := ctx.Deadline(); !ok {
		timer, _ := s.timers.Get().(*time.Timer)
		timer.Reset(s.q.config.CallTimeout)
		defer func() {
			timer.Stop()
			s.timers.Put(timer)
		}()
		limit = timer.C
	}
	select {
	case <-group.done:
		return nil
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-limit:
		cause = context.DeadlineExceeded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = slices.DeleteFunc(s.line, func(item *saveItem) bool { return item.group == group })
	return cause
}

// result returns the error of an item, as far as its outcome is known, and updates the
// job. The cause is why the caller gave up waiting, if it did.
func (s *saver) result(item *saveItem, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := item.job
	switch {
	case item.settled && errors.Is(item.err, ErrUncertain): // stays so, because saving the job anew might store it twice
		j.save = item
		return item.err
	case item.settled:
		j.save = nil
		if j.saved = (offset{}); item.newID != "" {
			j.ID, j.saved = item.newID, item.before
		}
		return item.err
	case item.sent:
		j.save = item
		if s.lastErr != nil {
			return fmt.Errorf("%w: %w (%w)", ErrUncertain, cause, s.lastErr)
		}
		return fmt.Errorf("%w: %w", ErrUncertain, cause)
	}
	j.save = nil
	return fmt.Errorf("not saved: %w", cause)
}

// finish ends the saver. Items in the line and calls in flight have until deadline.
func (s *saver) finish(deadline time.Time) {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	timer := time.AfterFunc(time.Until(deadline), s.abandon)
	s.flushers.Wait()
	timer.Stop()
	s.abandon()
}

// abandon ends the calls in flight, and settles what is in the line with ErrClosed.
func (s *saver) abandon() { s.endLife(ErrClosed) }
