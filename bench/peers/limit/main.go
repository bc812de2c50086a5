// Command limit is the measured process of LIMIT, which is no queue but a
// yardstick: the least work for each job that leaves in Redis what Bee-Queue leaves
// there, by the same client as ours. It has none of a queue's guarantees: no
// fencing, no repeatable calls, no retries, no timeouts, no panics recovered, no
// ids of the caller's, no delays, no stalled jobs, no errors of the wire format
// noticed.
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/bench/internal/peer"
)

func main() { peer.Main(open) }

// queue is one queue with a client of its own.
type queue struct {
	client rueidis.Client
	base   string
	saves  chan saving

	stop     context.CancelFunc
	flushers sync.WaitGroup

	mu      sync.Mutex
	waiters map[string]chan struct{} // requests, by the id of their job
	early   map[string]bool          // events that came before the id
}

type saving struct {
	record string
	id     chan string
}

const (
	most  = 500 // jobs in one script
	lanes = 2   // save scripts under way
)

var saveScript = rueidis.NewLuaScript(`
local last = redis.call('INCRBY', KEYS[1], #ARGV)
local ids, fields = {}, {}
for i = 1, #ARGV do
  ids[i] = string.format('%.0f', last - #ARGV + i)
  fields[2 * i - 1], fields[2 * i] = ids[i], ARGV[i]
end
redis.call('HSET', KEYS[2], unpack(fields))
redis.call('LPUSH', KEYS[3], unpack(ids))
return last`)

// KEYS: jobs waiting active succeeded events. ARGV: how many jobs to claim, then
// the ids of those that are done. Returns id, record, id, record...
var turnScript = rueidis.NewLuaScript(`
if #ARGV > 1 then
  local done = {}
  for i = 2, #ARGV do
    done[#done + 1] = ARGV[i]
    redis.call('LREM', KEYS[3], -1, ARGV[i])
  end
  local records = redis.call('HMGET', KEYS[1], unpack(done))
  local fields = {}
  for i, id in ipairs(done) do
    fields[2 * i - 1] = id
    fields[2 * i] = string.sub(records[i], 1, -10) .. 'succeeded"}'
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('SADD', KEYS[4], unpack(done))
  for _, id in ipairs(done) do
    redis.call('PUBLISH', KEYS[5], '{"id":"' .. id .. '","event":"succeeded"}')
  end
end
local reply = {}
local ids = tonumber(ARGV[1]) > 0 and redis.call('RPOP', KEYS[2], ARGV[1])
if ids then
  redis.call('LPUSH', KEYS[3], unpack(ids))
  local records = redis.call('HMGET', KEYS[1], unpack(ids))
  for i, id in ipairs(ids) do
    reply[2 * i - 1], reply[2 * i] = id, records[i]
  end
end
return reply`)

func open(ctx context.Context, url, name string) (peer.Peer, error) {
	client, err := beequeue.Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	q := &queue{
		client: client, base: "bq:" + tagged(name) + ":", saves: make(chan saving, most), stop: cancel,
		waiters: make(map[string]chan struct{}), early: make(map[string]bool),
	}
	for range lanes {
		q.flushers.Go(func() { q.flush(ctx) })
	}
	return q, nil
}

// tagged gives a name a hash tag, unless it has one.
func tagged(name string) string {
	if strings.Contains(name, "{") {
		return name
	}
	return "{" + name + "}"
}

func (q *queue) saveRecords(ctx context.Context, records []string) (last int64, err error) {
	return saveScript.Exec(ctx, q.client, []string{q.base + "id", q.base + "jobs", q.base + "waiting"}, records).AsInt64()
}

// flush saves what is in line, as many at once as there are.
func (q *queue) flush(ctx context.Context) {
	for {
		var batch []saving
		select {
		case s := <-q.saves:
			batch = append(batch, s)
		case <-ctx.Done():
			return
		}
	gather:
		for len(batch) < most {
			select {
			case s := <-q.saves:
				batch = append(batch, s)
			default:
				break gather
			}
		}
		records := make([]string, len(batch))
		for i, s := range batch {
			records[i] = s.record
		}
		last, err := q.saveRecords(ctx, records)
		for i, s := range batch {
			if err == nil {
				s.id <- strconv.FormatInt(last-int64(len(batch)-1-i), 10)
			}
			close(s.id)
		}
	}
}

var errLimit = errors.New("LIMIT could not save")

func (q *queue) saveOne(payload []byte) (string, error) {
	s := saving{peer.Record(payload), make(chan string, 1)}
	q.saves <- s
	id, ok := <-s.id
	if !ok {
		return "", errLimit
	}
	return id, nil
}

func (q *queue) Save(_ context.Context, payload []byte) error {
	_, err := q.saveOne(payload)
	return err
}

func (q *queue) Bulk(ctx context.Context, payload []byte, n int) error {
	for n > 0 {
		records := make([]string, min(n, most))
		for i := range records {
			records[i] = peer.Record(payload)
		}
		if _, err := q.saveRecords(ctx, records); err != nil {
			return err
		}
		n -= len(records)
	}
	return nil
}

func (q *queue) Work(ctx context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- q.loop(ctx, concurrency, handle, done) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			panic(fmt.Errorf("LIMIT worker: %w", err))
		}
	}, nil
}

// loop is a worker: one script after the other, each with the ids that are done
// and room for so many more.
func (q *queue) loop(ctx context.Context, size int, handle func(), done func(int)) error {
	keys := []string{q.base + "jobs", q.base + "waiting", q.base + "active", q.base + "succeeded", q.base + "events"}
	ends := make(chan string, size)
	woke := make(chan struct{}, 1)
	busy, asleep := 0, false
	args := []string{""}
	for {
	gather:
		for len(args) <= most {
			select {
			case id := <-ends:
				args = append(args, id)
			default:
				break gather
			}
		}
		for len(args) == 1 && (asleep || busy == size) {
			select {
			case id := <-ends:
				args = append(args, id)
			case <-woke:
				asleep = false
			case <-ctx.Done():
				return nil
			}
		}
		finished := len(args) - 1
		busy -= finished
		want := min(size-busy, most)
		if asleep {
			want = 0
		}
		args[0] = strconv.Itoa(want)
		reply, err := turnScript.Exec(ctx, q.client, keys, args).AsStrSlice()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if finished > 0 {
			done(finished)
		}
		args = []string{""}
		for i := 0; i < len(reply); i += 2 {
			busy++
			go func(id, record string) {
				if strings.HasPrefix(record, `{"data":`) { // as far as it looks at a record
					handle()
				}
				ends <- id
			}(reply[i], reply[i+1])
		}
		if want > 0 && len(reply) == 0 && !asleep {
			asleep = true
			go q.wake(ctx, woke)
		}
	}
}

// wake waits until there is a job.
func (q *queue) wake(ctx context.Context, woke chan<- struct{}) {
	for ctx.Err() == nil {
		key := q.base + "waiting"
		command := q.client.B().Blmove().Source(key).Destination(key).Right().Right().Timeout(2).Build()
		if q.client.Do(ctx, command).Error() == nil {
			woke <- struct{}{}
			return
		}
	}
}

// Request saves a job and waits for its event.
func (q *queue) Request(ctx context.Context, payload []byte) error {
	if err := q.subscribe(ctx); err != nil {
		return err
	}
	id, err := q.saveOne(payload)
	if err != nil {
		return err
	}
	q.mu.Lock()
	if q.early[id] {
		delete(q.early, id)
		q.mu.Unlock()
		return nil
	}
	heard := make(chan struct{})
	q.waiters[id] = heard
	q.mu.Unlock()
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// subscribe listens to the queue's events, from the first request on.
func (q *queue) subscribe(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiters[""] != nil {
		return nil
	}
	subscribed := make(chan struct{})
	q.waiters[""] = subscribed
	ctx = rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { close(subscribed) })
	ctx, cancel := context.WithCancel(ctx)
	end := q.stop
	q.stop = func() { cancel(); end() }
	q.flushers.Go(func() {
		_ = q.client.Receive(ctx, q.client.B().Subscribe().Channel(q.base+"events").Build(), func(m rueidis.PubSubMessage) {
			id, _, _ := strings.Cut(strings.TrimPrefix(m.Message, `{"id":"`), `"`)
			q.mu.Lock()
			defer q.mu.Unlock()
			if heard := q.waiters[id]; heard != nil {
				close(heard)
				delete(q.waiters, id)
				return
			}
			q.early[id] = true
		})
	})
	select {
	case <-subscribed:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("LIMIT could not subscribe")
	}
}

func (q *queue) Close() {
	q.stop()
	q.flushers.Wait()
	q.client.Close()
}
