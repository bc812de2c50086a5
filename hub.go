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
type hub struct {
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

	kick  chan struct{} // something is wanted that is not on
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

// hubLinger is how long the connection is kept when nobody listens any more, and
// at most as long again.
const hubLinger = 5 * time.Second

// hubEnds is how many ends of jobs are kept for a Wait that begins after its job has
// ended. One with a large result is not kept whole.
const (
	hubEnds    = 512
	hubEndMost = 4096
)

// mark is a place in what the hub hears. Its zero value is none.
type mark struct{ session, heard uint64 }

// watch is one Job.Watch.
type watch struct {
	id     string
	events chan event    // what was heard of the job
	end    chan event    // the event that ended it
	look   chan struct{} // something may have been missed: read the job's state
}

func (h *hub) init(q *Queue) {
	h.q = q
	h.wanted = make(map[string]int)
	h.on = make(map[string]bool)
	h.watches = make(map[string][]*watch)
	h.kick = make(chan struct{}, 1)
}

// listen subscribes for OnJob callbacks, until Close.
func (h *hub) listen() {
	h.mu.Lock()
	first := !h.listening
	h.listening = true
	h.mu.Unlock()
	if first {
		h.want(h.q.keys.events, 1)
	}
}

// hears tells whether the queue's events are subscribed.
func (h *hub) hears() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on[h.q.keys.events]
}

// mark gives the place in what the hub hears before a job is saved. What becomes of
// the job is heard after it.
func (h *hub) mark() mark {
	session := h.session.Load()
	if session == 0 {
		return mark{}
	}
	return mark{session, h.heard.Load()}
}

// watch subscribes for one job. The watch looks at the job's state as soon as the
// subscription stands, unless all that was said of the job since it was saved has
// been heard.
func (h *hub) watch(id string, saved mark) *watch {
	w := &watch{id: id, events: make(chan event, 64), end: make(chan event, 1), look: make(chan struct{}, 1)}
	h.mu.Lock()
	h.watches[id] = append(h.watches[id], w)
	if h.on[h.q.keys.events] && !h.recall(w, saved) {
		w.nudge()
	}
	h.mu.Unlock()
	h.want(h.q.keys.events, 1)
	return w
}

func (h *hub) unwatch(w *watch) {
	h.mu.Lock()
	rest := slices.DeleteFunc(h.watches[w.id], func(other *watch) bool { return other == w })
	if len(rest) == 0 {
		delete(h.watches, w.id)
	} else {
		h.watches[w.id] = rest
	}
	h.mu.Unlock()
	h.want(h.q.keys.events, -1)
}

// want changes how many listen to a channel, and starts the hub if need be. The
// queue owns the goroutine: it ends when nobody listens, and at Close.
func (h *hub) want(channel string, change int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wanted[channel] += change; h.wanted[channel] == 0 {
		delete(h.wanted, channel)
	}
	h.used = h.used || change > 0
	if !h.running && len(h.wanted) > 0 {
		h.running = h.q.spawn(func() { h.run(h.q.life) })
	}
	if change < 0 || h.on[channel] {
		return // subscribe finds out what is not wanted any more
	}
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// recall tells a watch of the job's end if that was heard since the mark. It reports
// whether all that was said since was heard. The caller has the lock.
func (h *hub) recall(w *watch, from mark) bool {
	heard := h.heard.Load()
	if from.session == 0 || from.session != h.session.Load() || heard-from.heard > hubEnds {
		return false
	}
	for i := from.heard; i < heard; i++ {
		if e := h.ends[i%hubEnds]; e.ID == w.id {
			if e.Name == "" { // it was too large
				return false
			}
			w.tell(e)
		}
	}
	return true
}

// keep remembers the end of a job. The caller has the lock.
func (h *hub) keep(e event) {
	if h.ends == nil {
		h.ends = make([]event, hubEnds)
	}
	if len(e.Data) > hubEndMost {
		e = event{ID: e.ID}
	}
	h.ends[h.heard.Load()%hubEnds] = e
	h.heard.Add(1)
}

// run keeps the subscription until nobody listens.
func (h *hub) run(ctx context.Context) {
	if h.inbox == nil { // half a megabyte, which a queue that listens to nothing does without
		h.inbox = make(chan message, 4096)
	}
	ctx, cancel := context.WithCancel(ctx)
	var dispatcher sync.WaitGroup
	dispatcher.Go(func() { h.dispatch(ctx) })
	defer dispatcher.Wait()
	defer cancel()

	var wait pause
	for {
		err := h.subscribe(ctx, func() { wait = pause{} })
		h.mu.Lock()
		clear(h.on)
		h.session.Store(0)
		h.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errNobodyListens) {
			if h.rest() {
				return
			}
			continue
		}
		h.q.report(err, "subscription")
		if !sleep(ctx, wait.next()) {
			return
		}
	}
}

var errNobodyListens = errors.New("nobody listens")

// rest ends the run if there is still nobody who listens.
func (h *hub) rest() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = len(h.wanted) > 0
	return !h.running
}

// subscribe subscribes on a new connection, and keeps what is subscribed in step
// with what is wanted until the connection breaks.
func (h *hub) subscribe(ctx context.Context, subscribed func()) error {
	conn, release := dedicate(ctx, h.q.client)
	if conn == nil {
		return ctx.Err()
	}
	defer release()
	defer conn.Close()
	broken := conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: h.receive})
	tick := time.NewTicker(hubLinger)
	defer tick.Stop()
	for {
		if err := h.adjust(ctx, conn); err != nil {
			return err
		}
		subscribed()
		select {
		case err := <-broken:
			if err == nil {
				err = errors.New("connection closed")
			}
			return err
		case <-h.kick:
		case <-tick.C:
			if !h.inUse() {
				return errNobodyListens
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inUse tells whether somebody listens or has begun to since it was last asked.
func (h *hub) inUse() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	used := h.used
	h.used = false
	return used || len(h.wanted) > 0
}

// adjust subscribes to what is wanted and not on yet, and the reverse. What was said
// on a channel before it was subscribed is missed: so everybody looks.
func (h *hub) adjust(ctx context.Context, conn rueidis.DedicatedClient) error {
	for {
		add, drop := h.difference()
		if len(add) == 0 && len(drop) == 0 {
			return nil
		}
		try, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := h.change(try, conn, add, drop)
		cancel()
		if err != nil {
			return err
		}
		h.mu.Lock()
		for _, channel := range add {
			h.on[channel] = true
			if channel == h.q.keys.events {
				h.sessions++
				h.session.Store(h.sessions)
			}
		}
		h.mu.Unlock()
		h.lookAll(add)
	}
}

// difference compares what is wanted with what is on. A channel to drop counts
// as off at once: who comes meanwhile has it subscribed again. While nothing is
// wanted at all, everything stays as it is, for somebody may come soon.
func (h *hub) difference() (add, drop []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for channel := range h.wanted {
		if !h.on[channel] {
			add = append(add, channel)
		}
	}
	for channel := range h.on {
		if len(h.wanted) > 0 && h.wanted[channel] == 0 {
			drop = append(drop, channel)
			delete(h.on, channel)
			if channel == h.q.keys.events {
				h.session.Store(0)
			}
		}
	}
	return add, drop
}

func (h *hub) change(ctx context.Context, conn rueidis.DedicatedClient, add, drop []string) error {
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
func (h *hub) receive(pub rueidis.PubSubMessage) {
	m := message{channel: pub.Channel, payload: pub.Message}
	if m.channel == h.q.keys.events {
		if m.event, m.err = decodeEvent(m.payload); m.err == nil && !h.tell(m.event) {
			return
		}
	}
	select {
	case h.inbox <- m:
	default:
		h.gap.Store(true)
	}
}

// tell tells the watches of an event, and reports whether there are callbacks that
// want to hear of it as well.
func (h *hub) tell(e event) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.ended() {
		h.keep(e)
	}
	for _, w := range h.watches[e.ID] {
		w.tell(e)
	}
	return h.listening
}

// dispatch hands messages to those who listen.
func (h *hub) dispatch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-h.inbox:
			h.deliver(m)
			if len(h.inbox) == 0 && h.gap.Swap(false) {
				h.q.report(errors.New("callbacks are too slow: events were dropped"), "subscription")
				h.lookAll([]string{h.q.keys.earlierDelayed}) // watches do not go this way
			}
		}
	}
}

func (h *hub) deliver(m message) {
	if m.channel == h.q.keys.earlierDelayed {
		due, ok := decodeDue(m.payload)
		if !ok {
			h.malformed(m, "want a time in Unix ms")
			return
		}
		h.mu.Lock()
		listeners := slices.Clone(h.dueSoon)
		h.mu.Unlock()
		for _, f := range listeners {
			f(due)
		}
		return
	}
	if m.err != nil {
		h.malformed(m, m.err.Error())
		return
	}
	h.q.callbacks.fireEvent(h.q, m.event)
}

// decodeDue reads a message on the channel earlierDelayed.
func decodeDue(payload string) (due time.Time, ok bool) {
	ms, err := strconv.ParseFloat(payload, 64)
	if err != nil || !(ms >= 0 && ms <= maxMillis) { // NaN is neither
		return time.Time{}, false
	}
	return time.UnixMilli(int64(ms)), true
}

func (h *hub) malformed(m message, reason string) {
	const most = 200
	if len(m.payload) > most {
		m.payload = m.payload[:most]
	}
	h.q.report(&EventError{Channel: m.channel, Payload: m.payload, Reason: reason}, "subscription")
}

// tell passes an event on, or has the watch look if it lags behind.
func (w *watch) tell(e event) {
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
func (h *hub) lookAll(channels []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(channels, h.q.keys.events) {
		for _, list := range h.watches {
			for _, w := range list {
				w.nudge()
			}
		}
	}
	if slices.Contains(channels, h.q.keys.earlierDelayed) {
		for _, f := range h.dueSoon {
			f(time.Time{})
		}
	}
}

// hearDue calls f with the due time of each new head of delayed, and with the
// zero time when some may have been missed, until the returned func is called.
// Only one worker of a queue listens at a time.
func (h *hub) hearDue(f func(due time.Time)) (stop func()) {
	h.mu.Lock()
	h.dueSoon = append(h.dueSoon, f)
	h.mu.Unlock()
	h.want(h.q.keys.earlierDelayed, 1)
	return func() {
		h.mu.Lock()
		h.dueSoon = nil
		h.mu.Unlock()
		h.want(h.q.keys.earlierDelayed, -1)
	}
}

// publish sends an event, by way of the node that has the queue: so events of a
// cluster arrive in order, also with those that scripts publish.
func (q *Queue) publish(ctx context.Context, event string) error {
	return q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Publish().Channel(q.keys.events).Message(event).Build().SetSlot(q.keys.base)
	}).Error()
}
