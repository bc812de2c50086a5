package beequeue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/store"
	"github.com/gobeequeue/beequeue/internal/wire"
)

// subscriber holds the queue's only Pub/Sub subscription, on a connection of its own.
// The connection exists only while somebody listens: an OnJob callback, a Watch or
// Wait, or a worker that follows the delayed jobs.
type subscriber struct {
	q *Queue

	mu        sync.Mutex
	recent    endRing             // its offset may be read without the lock
	used      bool                // somebody has begun to listen since inUse was last called
	wanted    map[string]int      // channel -> number of listeners
	on        map[string]bool     // channels that are subscribed
	watches   map[string][]*watch // by job id
	dueSoon   []func(due time.Time)
	running   bool
	listening bool // an OnJob callback was set

	wake  chan struct{} // a wanted channel is not subscribed yet
	inbox chan message  // from the connection's reader to the dispatcher
	gap   atomic.Bool   // the inbox was full, and messages were dropped
}

// message is one Pub/Sub message on its way from the connection's reader to the
// dispatcher. The reader must not block.
type message struct {
	channel, payload string
	event            event // the decoded payload, if err is nil
	err              error // why the payload is not an event
}

// lingerTime is the shortest time the connection stays open after the last listener has
// gone. It is checked once per lingerTime, so the longest is twice as much.
const lingerTime = 5 * time.Second

func (s *subscriber) init(q *Queue) {
	s.q = q
	s.wanted = make(map[string]int)
	s.on = make(map[string]bool)
	s.watches = make(map[string][]*watch)
	s.wake = make(chan struct{}, 1)
}

// listen subscribes to the queue's events for OnJob callbacks, until Close.
func (s *subscriber) listen() {
	s.mu.Lock()
	first := !s.listening
	s.listening = true
	s.mu.Unlock()
	if first {
		s.want(s.q.channel(store.Events), 1)
	}
}

// subscribed reports whether the subscription to the queue's events is in place.
func (s *subscriber) subscribed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on[s.q.channel(store.Events)]
}

// watch subscribes to the events of one job. The caller must end it with unwatch.
// The watch is told to read the job's state once the subscription is in place, unless
// every event since the offset saved was heard.
func (s *subscriber) watch(id string, saved offset) *watch {
	w := &watch{id: id, events: make(chan event, 64), end: make(chan event, 1), look: make(chan struct{}, 1)}
	s.mu.Lock()
	s.watches[id] = append(s.watches[id], w)
	if s.on[s.q.channel(store.Events)] && !s.recent.replay(w, saved) {
		w.nudge()
	}
	s.mu.Unlock()
	s.want(s.q.channel(store.Events), 1)
	return w
}

// unwatch ends a watch.
func (s *subscriber) unwatch(w *watch) {
	s.mu.Lock()
	others := slices.DeleteFunc(s.watches[w.id], func(other *watch) bool { return other == w })
	if len(others) == 0 {
		delete(s.watches, w.id)
	} else {
		s.watches[w.id] = others
	}
	s.mu.Unlock()
	s.want(s.q.channel(store.Events), -1)
}

// want changes the number of listeners of a channel, and starts the subscriber's
// goroutine unless it runs. The queue owns that goroutine. It ends when nobody has
// listened for a while, or at Close.
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
		return // adjust drops channels that are no longer wanted
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run keeps the subscription up, over lost connections, until nobody listens.
func (s *subscriber) run(ctx context.Context) {
	if s.inbox == nil { // made late: it takes half a megabyte, and many queues never listen
		s.inbox = make(chan message, 4096)
	}
	ctx, cancel := context.WithCancel(ctx)
	var dispatcher sync.WaitGroup
	dispatcher.Go(func() { s.dispatch(ctx) })
	defer dispatcher.Wait()
	defer cancel()

	var wait store.Pause
	for {
		err := s.subscribe(ctx, func() { wait = store.Pause{} })
		s.mu.Lock()
		clear(s.on)
		s.recent.endSession()
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
		if !store.Sleep(ctx, wait.Next()) {
			return
		}
	}
}

var errNobodyListens = errors.New("nobody listens")

// stopIfUnused ends the run, unless somebody has begun to listen meanwhile. It reports
// whether the run has ended.
func (s *subscriber) stopIfUnused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = len(s.wanted) > 0
	return !s.running
}

// subscribe opens a connection, and keeps its subscriptions in step with what is wanted.
// It calls established whenever they are. It returns errNobodyListens when the
// connection is no longer used, ctx's error, or the error of a lost connection.
func (s *subscriber) subscribe(ctx context.Context, established func()) error {
	conn, release := store.Dedicate(ctx, s.q.client)
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
		established()
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

// inUse reports whether somebody listens, or has begun to listen since the last call.
func (s *subscriber) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.used
	s.used = false
	return used || len(s.wanted) > 0
}

// adjust subscribes to channels that are wanted, and unsubscribes from the others.
// Messages sent before a subscription are missed, so its listeners look for themselves.
func (s *subscriber) adjust(ctx context.Context, conn rueidis.DedicatedClient) error {
	for {
		add, drop := s.difference()
		if len(add) == 0 && len(drop) == 0 {
			return nil
		}
		try, cancel := context.WithTimeout(ctx, store.AttemptTimeout)
		err := s.change(try, conn, add, drop)
		cancel()
		if err != nil {
			return err
		}
		s.mu.Lock()
		for _, channel := range add {
			s.on[channel] = true
			if channel == s.q.channel(store.Events) {
				s.recent.beginSession()
			}
		}
		s.mu.Unlock()
		s.lookAll(add)
	}
}

// difference returns the channels to subscribe to, and those to unsubscribe from. The
// latter count as off at once, so a listener who comes meanwhile has them subscribed
// again. While nothing is wanted at all, all channels stay, because a listener may come
// soon.
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
			if channel == s.q.channel(store.Events) {
				s.recent.endSession()
			}
		}
	}
	return add, drop
}

// change sends the commands that add and drop subscriptions.
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

// channel returns the name of one of the queue's channels.
func (q *Queue) channel(key store.Key) string { return q.store.Keys().Name(key) }

// receive takes a message from the connection's reader, and must not block. Watches get
// an event at once. Callbacks get it by way of the dispatcher.
func (s *subscriber) receive(pub rueidis.PubSubMessage) {
	m := message{channel: pub.Channel, payload: pub.Message}
	if m.channel == s.q.channel(store.Events) {
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

// deliver passes an event to the job's watches. It reports whether OnJob callbacks may
// want the event too.
func (s *subscriber) deliver(e event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.ended() {
		s.recent.rememberEnd(e)
	}
	for _, w := range s.watches[e.ID] {
		w.deliver(e)
	}
	return s.listening
}

// dispatch takes messages from the inbox and runs the callbacks, until ctx ends.
func (s *subscriber) dispatch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-s.inbox:
			s.handle(m)
			if len(s.inbox) == 0 && s.gap.Swap(false) {
				s.q.report(errors.New("callbacks are too slow: events were dropped"), "subscription")
				s.lookAll([]string{s.q.channel(store.EarlierDelayed)}) // watches do not use the inbox
			}
		}
	}
}

// handle passes one message to its listeners.
func (s *subscriber) handle(m message) {
	if m.channel == s.q.channel(store.EarlierDelayed) {
		due, ok := wire.DecodeDue(m.payload)
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

// malformed reports a message that cannot be read, as an *EventError.
func (s *subscriber) malformed(m message, reason string) {
	const most = 200 // bytes of the payload to show
	if len(m.payload) > most {
		m.payload = m.payload[:most]
	}
	s.q.report(&EventError{Channel: m.channel, Payload: m.payload, Reason: reason}, "subscription")
}

// lookAll tells the listeners of channels that they may have missed messages.
func (s *subscriber) lookAll(channels []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(channels, s.q.channel(store.Events)) {
		for _, list := range s.watches {
			for _, w := range list {
				w.nudge()
			}
		}
	}
	if slices.Contains(channels, s.q.channel(store.EarlierDelayed)) {
		for _, f := range s.dueSoon {
			f(time.Time{})
		}
	}
}

// hearDue calls f with the due time of each job that becomes the first of the delayed
// jobs. It calls f with the zero time when messages may have been missed. The returned
// func ends this. A queue has one worker at a time, and so one listener.
func (s *subscriber) hearDue(f func(due time.Time)) (stop func()) {
	s.mu.Lock()
	s.dueSoon = append(s.dueSoon, f)
	s.mu.Unlock()
	s.want(s.q.channel(store.EarlierDelayed), 1)
	return func() {
		s.mu.Lock()
		s.dueSoon = nil
		s.mu.Unlock()
		s.want(s.q.channel(store.EarlierDelayed), -1)
	}
}
