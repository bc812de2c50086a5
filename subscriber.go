package beequeue

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// The hub holds the queue's subscription. It has one connection of its own, and
// has it only while somebody listens: an OnJob callback, a Watch or Wait, or a
// worker that wants to know of delayed jobs.
type subscriber struct {
	q *Queue

	// What a Save notes, so that a Wait after it knows whether it has heard all since:
	session atomic.Uint64 // numbers the subscriptions of events; 0 while there is none
	heard   atomic.Uint64 // ends of jobs heard

	mu        sync.Mutex
	sessions  uint64              // the last session's number
	ends      []event             // the last ends heard, in a ring
	used      bool                // somebody has begun to listen lately
	wanted    map[string]int      // channel -> how many listen
	on        map[string]bool     // channels that are subscribed
	watches   map[string][]*watch // by job id
	dueSoon   []func(due time.Time)
	running   bool
	listening bool // an OnJob callback was set

	wake  chan struct{} // something is wanted that is not on
	inbox chan message
	gap   atomic.Bool // messages were dropped
}

// message is one Pub/Sub message on its way from the connection's reader, which
// must not block, to the dispatcher.
type message struct {
	channel, payload string
	event            event // that it is, unless err says why not
	err              error
}

// lingerTime is how long the connection is kept when nobody listens any more, and
// at most as long again.
const lingerTime = 5 * time.Second

// endsKept is how many ends of jobs are kept for a Wait that begins after its job has
// ended. One with a large result is not kept whole.
const (
	endsKept    = 512
	endSizeMost = 4096
)

// mark is a place in what the hub hears. Its zero value is none.
type offset struct{ session, heard uint64 }

// watch is one Job.Watch.
type watch struct {
	id     string
	events chan event    // what was heard of the job
	end    chan event    // the event that ended it
	look   chan struct{} // something may have been missed: read the job's state
}

func (s *subscriber) init(q *Queue) {
	s.q = q
	s.wanted = make(map[string]int)
	s.on = make(map[string]bool)
	s.watches = make(map[string][]*watch)
	s.wake = make(chan struct{}, 1)
}

// listen subscribes for OnJob callbacks, until Close.
func (s *subscriber) listen() {
	s.mu.Lock()
	first := !s.listening
	s.listening = true
	s.mu.Unlock()
	if first {
		s.want(s.q.keys.events, 1)
	}
}

// subscribed tells whether the queue's events are subscribed.
func (s *subscriber) subscribed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on[s.q.keys.events]
}

// mark gives the place in what the hub hears before a job is saved. What becomes of
// the job is heard after it.
func (s *subscriber) offset() offset {
	session := s.session.Load()
	if session == 0 {
		return offset{}
	}
	return offset{session, s.heard.Load()}
}

// watch subscribes for one job. The watch looks at the job's state as soon as the
// subscription stands, unless all that was said of the job since it was saved has
// been heard.
func (s *subscriber) watch(id string, saved offset) *watch {
	w := &watch{id: id, events: make(chan event, 64), end: make(chan event, 1), look: make(chan struct{}, 1)}
	s.mu.Lock()
	s.watches[id] = append(s.watches[id], w)
	if s.on[s.q.keys.events] && !s.replay(w, saved) {
		w.nudge()
	}
	s.mu.Unlock()
	s.want(s.q.keys.events, 1)
	return w
}

func (s *subscriber) unwatch(w *watch) {
	s.mu.Lock()
	rest := slices.DeleteFunc(s.watches[w.id], func(other *watch) bool { return other == w })
	if len(rest) == 0 {
		delete(s.watches, w.id)
	} else {
		s.watches[w.id] = rest
	}
	s.mu.Unlock()
	s.want(s.q.keys.events, -1)
}

// want changes how many listen to a channel, and starts the hub if need be. The
// queue owns the goroutine: it ends when nobody listens, and at Close.
func (s *subscriber) want(channel string, change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted[channel] += change; s.wanted[channel] == 0 {
		delete(s.wanted, channel)
	}
	s.used = s.used || change > 0
	if !s.running && len(s.wanted) > 0 {
		s.running = s.q.spawn(func() { s.run(s.q.life) })
	}
	if change < 0 || s.on[channel] {
		return // subscribe finds out what is not wanted any more
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// replay tells a watch of the job's end if that was heard since the mark. It reports
// whether all that was said since was heard. The caller has the lock.
func (s *subscriber) replay(w *watch, from offset) bool {
	heard := s.heard.Load()
	if from.session == 0 || from.session != s.session.Load() || heard-from.heard > endsKept {
		return false
	}
	for i := from.heard; i < heard; i++ {
		if e := s.ends[i%endsKept]; e.ID == w.id {
			if e.Name == "" { // it was too large
				return false
			}
			w.deliver(e)
		}
	}
	return true
}

// keep remembers the end of a job. The caller has the lock.
func (s *subscriber) rememberEnd(e event) {
	if s.ends == nil {
		s.ends = make([]event, endsKept)
	}
	if len(e.Data) > endSizeMost {
		e = event{ID: e.ID}
	}
	s.ends[s.heard.Load()%endsKept] = e
	s.heard.Add(1)
}

// run keeps the subscription until nobody listens.
func (s *subscriber) run(ctx context.Context) {
	if s.inbox == nil { // half a megabyte, which a queue that listens to nothing does without
		s.inbox = make(chan message, 4096)
	}
	ctx, cancel := context.WithCancel(ctx)
	var dispatcher sync.WaitGroup
	dispatcher.Go(func() { s.dispatch(ctx) })
	defer dispatcher.Wait()
	defer cancel()

	var wait pause
	for {
		err := s.subscribe(ctx, func() { wait = pause{} })
		s.mu.Lock()
		clear(s.on)
		s.session.Store(0)
		s.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errNobodyListens) {
			if s.stopIfUnused() {
				return
			}
			continue
		}
		s.q.report(err, "subscription")
		if !sleep(ctx, wait.next()) {
			return
		}
	}
}

var errNobodyListens = errors.New("nobody listens")

// rest ends the run if there is still nobody who listens.
func (s *subscriber) stopIfUnused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = len(s.wanted) > 0
	return !s.running
}

// subscribe subscribes on a new connection, and keeps what is subscribed in step
// with what is wanted until the connection breaks.
func (s *subscriber) subscribe(ctx context.Context, subscribed func()) error {
	conn, release := dedicate(ctx, s.q.client)
	if conn == nil {
		return ctx.Err()
	}
	defer release()
	defer conn.Close()
	broken := conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: s.receive})
	tick := time.NewTicker(lingerTime)
	defer tick.Stop()
	for {
		if err := s.adjust(ctx, conn); err != nil {
			return err
		}
		subscribed()
		select {
		case err := <-broken:
			if err == nil {
				err = errors.New("connection closed")
			}
			return err
		case <-s.wake:
		case <-tick.C:
			if !s.inUse() {
				return errNobodyListens
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inUse tells whether somebody listens or has begun to since it was last asked.
func (s *subscriber) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.used
	s.used = false
	return used || len(s.wanted) > 0
}

// adjust subscribes to what is wanted and not on yet, and the reverse. What was said
// on a channel before it was subscribed is missed: so everybody looks.
func (s *subscriber) adjust(ctx context.Context, conn rueidis.DedicatedClient) error {
	for {
		add, drop := s.difference()
		if len(add) == 0 && len(drop) == 0 {
			return nil
		}
		try, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := s.change(try, conn, add, drop)
		cancel()
		if err != nil {
			return err
		}
		s.mu.Lock()
		for _, channel := range add {
			s.on[channel] = true
			if channel == s.q.keys.events {
				s.sessions++
				s.session.Store(s.sessions)
			}
		}
		s.mu.Unlock()
		s.lookAll(add)
	}
}

// difference compares what is wanted with what is on. A channel to drop counts
// as off at once: who comes meanwhile has it subscribed again. While nothing is
// wanted at all, everything stays as it is, for somebody may come soon.
func (s *subscriber) difference() (add, drop []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for channel := range s.wanted {
		if !s.on[channel] {
			add = append(add, channel)
		}
	}
	for channel := range s.on {
		if len(s.wanted) > 0 && s.wanted[channel] == 0 {
			drop = append(drop, channel)
			delete(s.on, channel)
			if channel == s.q.keys.events {
				s.session.Store(0)
			}
		}
	}
	return add, drop
}

func (s *subscriber) change(ctx context.Context, conn rueidis.DedicatedClient, add, drop []string) error {
	if len(add) > 0 {
		if err := conn.Do(ctx, conn.B().Subscribe().Channel(add...).Build()).Error(); err != nil {
			return err
		}
	}
	if len(drop) > 0 {
		return conn.Do(ctx, conn.B().Unsubscribe().Channel(drop...).Build()).Error()
	}
	return nil
}

// receive takes a message off the connection. It must not block. Watches hear of it
// at once, callbacks by way of the dispatcher.
func (s *subscriber) receive(pub rueidis.PubSubMessage) {
	m := message{channel: pub.Channel, payload: pub.Message}
	if m.channel == s.q.keys.events {
		if m.event, m.err = decodeEvent(m.payload); m.err == nil && !s.deliver(m.event) {
			return
		}
	}
	select {
	case s.inbox <- m:
	default:
		s.gap.Store(true)
	}
}

// tell tells the watches of an event, and reports whether there are callbacks that
// want to hear of it as well.
func (s *subscriber) deliver(e event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.ended() {
		s.rememberEnd(e)
	}
	for _, w := range s.watches[e.ID] {
		w.deliver(e)
	}
	return s.listening
}

// dispatch hands messages to those who listen.
func (s *subscriber) dispatch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-s.inbox:
			s.handle(m)
			if len(s.inbox) == 0 && s.gap.Swap(false) {
				s.q.report(errors.New("callbacks are too slow: events were dropped"), "subscription")
				s.lookAll([]string{s.q.keys.earlierDelayed}) // watches do not go this way
			}
		}
	}
}

func (s *subscriber) handle(m message) {
	if m.channel == s.q.keys.earlierDelayed {
		due, ok := decodeDue(m.payload)
		if !ok {
			s.malformed(m, "want a time in Unix ms")
			return
		}
		s.mu.Lock()
		listeners := slices.Clone(s.dueSoon)
		s.mu.Unlock()
		for _, f := range listeners {
			f(due)
		}
		return
	}
	if m.err != nil {
		s.malformed(m, m.err.Error())
		return
	}
	s.q.callbacks.fireEvent(s.q, m.event)
}

// decodeDue reads a message on the channel earlierDelayed.
func decodeDue(payload string) (due time.Time, ok bool) {
	ms, err := strconv.ParseFloat(payload, 64)
	if err != nil || !(ms >= 0 && ms <= maxMillis) { // NaN is neither
		return time.Time{}, false
	}
	return time.UnixMilli(int64(ms)), true
}

func (s *subscriber) malformed(m message, reason string) {
	const most = 200
	if len(m.payload) > most {
		m.payload = m.payload[:most]
	}
	s.q.report(&EventError{Channel: m.channel, Payload: m.payload, Reason: reason}, "subscription")
}

// tell passes an event on, or has the watch look if it lags behind.
func (w *watch) deliver(e event) {
	to := w.events
	if e.ended() {
		to = w.end
	}
	select {
	case to <- e:
	default:
		w.nudge()
	}
}

func (w *watch) nudge() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// lookAll has those look who listen to channels of which messages may have been missed.
func (s *subscriber) lookAll(channels []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(channels, s.q.keys.events) {
		for _, list := range s.watches {
			for _, w := range list {
				w.nudge()
			}
		}
	}
	if slices.Contains(channels, s.q.keys.earlierDelayed) {
		for _, f := range s.dueSoon {
			f(time.Time{})
		}
	}
}

// hearDue calls f with the due time of each new head of delayed, and with the
// zero time when some may have been missed, until the returned func is called.
// Only one worker of a queue listens at a time.
func (s *subscriber) hearDue(f func(due time.Time)) (stop func()) {
	s.mu.Lock()
	s.dueSoon = append(s.dueSoon, f)
	s.mu.Unlock()
	s.want(s.q.keys.earlierDelayed, 1)
	return func() {
		s.mu.Lock()
		s.dueSoon = nil
		s.mu.Unlock()
		s.want(s.q.keys.earlierDelayed, -1)
	}
}

// publish sends an event, by way of the node that has the queue: so events of a
// cluster arrive in order, also with those that scripts publish.
func (q *Queue) publish(ctx context.Context, event string) error {
	return q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Publish().Channel(q.keys.events).Message(event).Build().SetSlot(q.keys.base)
	}).Error()
}
