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
)

// The saver gathers jobs and saves them. Items wait in a line; a flusher, one
// for each lane that is in use, takes what is in the line, saves it in one call,
// and goes on until the line is empty.
type saver struct {
	q *Queue

	mu      sync.Mutex
	line    []*saveItem
	idle    []*lane
	stopped bool  // Close has begun: nothing more gets in line
	lastErr error // why the call under way has no reply yet

	timers   sync.Pool // of callers, who are many
	flushers sync.WaitGroup
	life     context.Context //nolint:containedctx // ends calls that nobody waits for any more
	endLife  context.CancelCauseFunc
}

// saveLanes is how many save calls of a queue may be under way at once. More
// than two gains nothing (shared measurements: half the CPU of Redis for each
// job, against a call a job).
const saveLanes = 2

// A call takes at most this many jobs, and stops taking at this many bytes.
const (
	saveMost  = 1000
	saveBytes = 1 << 18
)

// saveItem is one job on its way.
type saveItem struct {
	job             *Job
	before          offset // what the hub has heard of others
	id, record, due string
	group           *saveGroup
	sentFor         *saveGroup // the group it was sent for
	sent            bool       // part of a call under way
	settled         bool       // id or err is final
	newID           string
	err             error
}

// saveGroup lets a caller wait for several items.
type saveGroup struct {
	open     int // items not settled
	inFlight int // items in the call under way
	done     chan struct{}
}

func newSaveGroup(n int) *saveGroup {
	g := &saveGroup{open: n, done: make(chan struct{})}
	if n == 0 {
		close(g.done)
	}
	return g
}

// saveAlone is a job that is a group of its own, in one piece.
type saveAlone struct {
	item  saveItem
	group saveGroup
}

// settle takes note of n items that are settled. The caller has the saver's lock.
func (g *saveGroup) countDown(n int) {
	if n == 0 {
		return
	}
	if g.open -= n; g.open == 0 {
		close(g.done)
	}
}

// settle makes the item's outcome final. The caller has the saver's lock.
func (i *saveItem) settle(err error) {
	i.settled, i.err = true, err
	i.group.countDown(1)
}

func (s *saver) init(q *Queue) {
	s.q = q
	s.timers.New = func() any { return time.NewTimer(time.Hour) }
	s.life, s.endLife = context.WithCancelCause(context.Background())
	for i := range saveLanes {
		l := newLane(q.token, "save"+strconv.Itoa(i))
		s.idle = append(s.idle, &l)
	}
}

// saveOne saves one job.
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

// save saves jobs, and gives the errors of those that are not known to be saved.
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

// submitMost is how many jobs of a SaveAll get in line at once: the first are on
// their way while the next are encoded.
const submitMost = 100

// submit puts jobs in the line; those that cannot be saved at all go to failed.
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

// fill makes the item of a job.
func (s *saver) fill(item *saveItem, j *Job, group *saveGroup) error {
	if err := s.refuse(j); err != nil {
		return err
	}
	item.job, item.id, item.group = j, j.ID, group
	item.before = s.q.subscriber.recent.offset()
	item.record = j.encode()
	if due := j.Options.DelayUntil; !due.IsZero() && due.After(time.Now()) {
		item.due = strconv.FormatInt(dueMillis(due), 10)
	}
	return nil
}

// add puts an item in the line and sees that somebody takes it. If an earlier
// Save of the job was given up while its outcome was not known, the item of that
// Save is taken up again instead. The caller has the lock.
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

// flush saves what is in the line until there is nothing left, and then gives
// its lane back.
func (s *saver) flush(l *lane) {
	defer s.flushers.Done()
	for {
		batch := s.take(l)
		if batch == nil {
			return
		}
		now := time.Now()
		renew := now.Sub(l.renewed) > renewal || s.q.config.SaveReplicas > 0
		args := prepareSave(l, batch, renew, s.q.config.MaxWaiting)
		// Nobody's context: callers come and go while the call is repeated.
		ctx, cancel := context.WithTimeout(s.life, callRetention/2)
		replies, err := s.q.saveJobs(ctx, args, len(batch), s.noteErr, false)
		for wait := (pause{}); errors.Is(err, ErrUncertain) && sleep(ctx, wait.next()); {
			// It may have run: under another number, the jobs would be stored again.
			replies, err = s.q.saveJobs(ctx, args, len(batch), s.noteErr, true)
		}
		cancel()
		clear(args) // of what they hold
		if err == nil && renew {
			l.renewed = now
		}
		s.answer(batch, replies, err)
		runtime.Gosched() // callers that save one job after the other have their next in the next call
	}
}

// take gives the next items of the line, or nil when there are none; then the
// lane is idle. A group's items go one call after the other, which keeps their
// order: the lane that has the group goes on with the line.
func (s *saver) take(l *lane) []*saveItem {
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
		size += len(s.line[n].record)
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
		s.line = nil // let go of the array
	}
	return batch
}

// note keeps why a call has to be repeated, for callers that give up on it.
func (s *saver) noteErr(err error) {
	s.mu.Lock()
	s.lastErr = err
	s.mu.Unlock()
}

// settle tells the callers what became of their jobs.
func (s *saver) answer(batch []*saveItem, replies []saveReply, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastErr = nil
	for i, item := range batch {
		item.sentFor.inFlight--
		switch {
		case err != nil:
			item.settle(err)
		case replies[i].duplicate:
			item.settle(ErrDuplicateID)
		case replies[i].full:
			item.settle(fmt.Errorf("%w: at most %d", ErrQueueFull, s.q.config.MaxWaiting))
		default:
			item.newID = replies[i].id
			item.settle(nil)
		}
	}
}

// wait returns when all items of the group are settled, or when ctx or, if that has
// no deadline, Config.CallTimeout has ended: then the items that have not been sent
// leave the line. It gives the cause of that.
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

// result gives what became of an item, as far as it is known. The cause is why its
// caller waits no longer.
func (s *saver) result(item *saveItem, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := item.job
	switch {
	case item.settled && errors.Is(item.err, ErrUncertain): // for good: to save it anew might store it twice
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

// finish ends the saver: what is in line or under way has until deadline.
func (s *saver) finish(deadline time.Time) {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	timer := time.AfterFunc(time.Until(deadline), s.abandon)
	s.flushers.Wait()
	timer.Stop()
	s.abandon()
}

// abandon ends the calls under way.
func (s *saver) abandon() { s.endLife(ErrClosed) }
