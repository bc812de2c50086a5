package main

import (
	"context"
	"maps"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// A layout is how a library lays a queue out in Redis.
type layout struct {
	prefix string
	lists  []string // states that are lists
	sets   []string
	zsets  []string
	ends   map[string]bool // states in which a job stays
	hash   string          // has the records, by id; or
	each   string          // begins the key of each record
}

var beeQueueLayout = layout{
	prefix: "bq:{" + queueName + "}:",
	lists:  []string{"waiting", "active"},
	sets:   []string{"succeeded", "failed"},
	zsets:  []string{"delayed"},
	ends:   map[string]bool{"succeeded": true, "failed": true},
	hash:   "jobs",
}

var asynqLayout = layout{
	prefix: "asynq:{" + queueName + "}:",
	lists:  []string{"pending", "active"},
	zsets:  []string{"scheduled", "retry", "archived", "completed"},
	ends:   map[string]bool{"archived": true, "completed": true},
	each:   "t:",
}

// states are the names of the states, in the order of the script's reply.
func (l layout) states() []string {
	return append(append(append([]string{}, l.lists...), l.sets...), l.zsets...)
}

// readStates returns the ids in each state, all in one step. A key of a wrong type has none.
const readStates = `
local reply = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'list' then reply[i] = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then reply[i] = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then reply[i] = redis.call('ZRANGE', key, 0, -1)
  else reply[i] = {} end
end
return reply`

// snapshot is where all jobs are at one moment, and maybe their records.
type snapshot struct {
	places  map[string][]string // states by id; one twice if the id is there twice
	counts  map[string]int      // ids by state
	records map[string]string
}

func (l layout) read(ctx context.Context, client rueidis.Client) (snapshot, error) {
	names := l.states()
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = l.prefix + name
	}
	s := snapshot{places: make(map[string][]string), counts: make(map[string]int)}
	replies, err := client.Do(ctx, client.B().Eval().Script(readStates).Numkeys(int64(len(keys))).Key(keys...).Build()).ToArray()
	if err != nil {
		return s, err
	}
	for i, reply := range replies {
		ids, err := reply.AsStrSlice()
		if err != nil {
			return s, err
		}
		s.counts[names[i]] = len(ids)
		for _, id := range ids {
			s.places[id] = append(s.places[id], names[i])
		}
	}
	return s, nil
}

// readAll reads the records, too. Nothing may move meanwhile.
func (l layout) readAll(ctx context.Context, client rueidis.Client) (snapshot, error) {
	s, err := l.read(ctx, client)
	if err != nil {
		return s, err
	}
	if l.hash != "" {
		s.records, err = client.Do(ctx, client.B().Hgetall().Key(l.prefix+l.hash).Build()).AsStrMap()
		return s, err
	}
	s.records = make(map[string]string)
	for _, node := range client.Nodes() {
		for cursor := uint64(0); ; {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(l.prefix+l.each+"*").Count(1000).Build()).AsScanEntry()
			if err != nil {
				return s, err
			}
			for _, key := range page.Elements {
				// Not of this node, which may be a replica, or have a slot no more.
				record, err := client.Do(ctx, client.B().Hget().Key(key).Field("msg").Build()).ToString()
				if rueidis.IsRedisNil(err) {
					continue
				}
				if err != nil {
					return s, err
				}
				s.records[key[len(l.prefix+l.each):]] = record
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return s, nil
}

var numberInRecord = regexp.MustCompile(`\{"n":(\d+)`)

// number finds the job's number in its record, -1 if there is none.
func number(record string) int {
	match := numberInRecord.FindStringSubmatch(record)
	if match == nil {
		return -1
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

// A watch looks at Redis all the time, for what must be so at every moment.
type watch struct {
	client   rueidis.Client
	layout   layout
	interval time.Duration
	cancel   context.CancelFunc
	ended    chan struct{}

	mu      sync.Mutex
	looks   int
	began   time.Time
	waiting map[string]time.Time // since when it has been waiting without a break
	twice   map[string][]string  // ids that were in two states
	now     snapshot
	at      time.Time     // when now was asked for
	slow    time.Duration // the longest that a look has taken, while Redis was there
	away    bool          // the last look has failed
}

func newWatch(client rueidis.Client, l layout, interval time.Duration) *watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{
		client: client, layout: l, interval: interval, cancel: cancel, ended: make(chan struct{}),
		waiting: make(map[string]time.Time), twice: make(map[string][]string), began: time.Now(),
	}
	go func() {
		defer close(w.ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.look(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	return w
}

func (w *watch) close() {
	w.cancel()
	<-w.ended
}

// look takes a snapshot. While Redis is away there is none.
func (w *watch) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	began := time.Now()
	s, err := w.layout.read(ctx, w.client)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.away = true
		return
	}
	w.looks++
	w.now, w.at = s, began
	if !w.away {
		w.slow = max(w.slow, time.Since(began))
	}
	w.away = false
	for id, places := range s.places {
		if len(places) > 1 {
			w.twice[id] = places
		}
		if places[0] != w.layout.lists[0] {
			delete(w.waiting, id)
		} else if _, known := w.waiting[id]; !known {
			w.waiting[id] = time.Now()
		}
	}
}

// waitingSince tells since when a job has been waiting; zero if it is not.
func (w *watch) waitingSince(id string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting[id]
}

// place is the state that a job was in when it was last seen.
func (w *watch) place(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if places := w.now.places[id]; len(places) > 0 {
		return places[0]
	}
	return ""
}

// count is the number of jobs in a state.
func (w *watch) count(state string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.counts[state]
}

// slowest is the longest that Redis took to answer.
func (w *watch) slowest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slow
}

// left is the number of jobs that have not ended, by a look of just now; -1 without one.
func (w *watch) left() int { return w.leftSince(time.Now().Add(-time.Second - w.interval)) }

// leftSince is left by a look that began after a moment.
func (w *watch) leftSince(after time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looks == 0 || !w.at.After(after) || time.Since(w.at) > time.Second+w.interval {
		return -1
	}
	n := 0
	for state, count := range w.now.counts {
		if !w.layout.ends[state] {
			n += count
		}
	}
	return n
}

// often is which part of its looks it could take: none while Redis was away, and each
// takes its time.
func (w *watch) often() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return float64(w.looks) * w.interval.Seconds() / time.Since(w.began).Seconds()
}

// seenTwice gives the ids that were seen in two states, and these.
func (w *watch) seenTwice() map[string][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.twice)
}

// forgive forgets that an id was in two states, which it was by our doing.
func (w *watch) forgive(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.twice, id)
}
