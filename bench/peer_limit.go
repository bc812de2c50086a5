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
)

func init() {
	peersInGo["LIMIT"] = openLimit
}

// limitPeer is no queue but a yardstick: the least work for each job that leaves
// in Redis what Bee-Queue leaves there, by the same client as ours. It has none of
// a queue's guarantees: no fencing, no repeatable calls, no retries, no timeouts,
// no panics recovered, no ids of the caller's, no delays, no stalled jobs, no
// errors of the wire format noticed.
type limitPeer struct {
	client rueidis.Client
	base   string
	saves  chan limitSave

	stop     context.CancelFunc
	flushers sync.WaitGroup

	mu      sync.Mutex
	waiters map[string]chan struct{} // requests, by the id of their job
	early   map[string]bool          // events that came before the id
}

type limitSave struct {
	record string
	id     chan string
}

const (
	limitMost  = 500 // jobs in one script
	limitLanes = 2   // save scripts under way
)

var limitSaveScript = rueidis.NewLuaScript(`
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
var limitTurnScript = rueidis.NewLuaScript(`
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

func openLimit(_ context.Context, o order, queue string) (peer, error) {
	client, err := beequeue.Dial(o.URL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &limitPeer{
		client: client, base: "bq:{" + queue + "}:", saves: make(chan limitSave, limitMost), stop: cancel,
		waiters: make(map[string]chan struct{}), early: make(map[string]bool),
	}
	for range limitLanes {
		p.flushers.Go(func() { p.flush(ctx) })
	}
	return p, nil
}

func limitRecord(payload []byte) string {
	return `{"data":` + string(payload) + `,"options":{"timestamp":` + strconv.FormatInt(time.Now().UnixMilli(), 10) +
		`,"stacktraces":[]},"progress":0,"status":"created"}`
}

func (p *limitPeer) saveRecords(ctx context.Context, records []string) (last int64, err error) {
	return limitSaveScript.Exec(ctx, p.client, []string{p.base + "id", p.base + "jobs", p.base + "waiting"}, records).AsInt64()
}

// flush saves what is in line, as many at once as there are.
func (p *limitPeer) flush(ctx context.Context) {
	for {
		var batch []limitSave
		select {
		case s := <-p.saves:
			batch = append(batch, s)
		case <-ctx.Done():
			return
		}
	gather:
		for len(batch) < limitMost {
			select {
			case s := <-p.saves:
				batch = append(batch, s)
			default:
				break gather
			}
		}
		records := make([]string, len(batch))
		for i, s := range batch {
			records[i] = s.record
		}
		last, err := p.saveRecords(ctx, records)
		for i, s := range batch {
			if err == nil {
				s.id <- strconv.FormatInt(last-int64(len(batch)-1-i), 10)
			}
			close(s.id)
		}
	}
}

var errLimit = errors.New("LIMIT could not save")

func (p *limitPeer) saveOne(payload []byte) (string, error) {
	s := limitSave{limitRecord(payload), make(chan string, 1)}
	p.saves <- s
	id, ok := <-s.id
	if !ok {
		return "", errLimit
	}
	return id, nil
}

func (p *limitPeer) save(_ context.Context, payload []byte) error {
	_, err := p.saveOne(payload)
	return err
}

func (p *limitPeer) bulk(ctx context.Context, payload []byte, n int) error {
	for n > 0 {
		records := make([]string, min(n, limitMost))
		for i := range records {
			records[i] = limitRecord(payload)
		}
		if _, err := p.saveRecords(ctx, records); err != nil {
			return err
		}
		n -= len(records)
	}
	return nil
}

func (p *limitPeer) work(ctx context.Context, concurrency int, handle func(), done func(int)) (func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.loop(ctx, concurrency, handle, done) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			panic(fmt.Errorf("LIMIT worker: %w", err))
		}
	}, nil
}

// loop is a worker: one script after the other, each with the ids that are done
// and room for so many more.
func (p *limitPeer) loop(ctx context.Context, size int, handle func(), done func(int)) error {
	keys := []string{p.base + "jobs", p.base + "waiting", p.base + "active", p.base + "succeeded", p.base + "events"}
	ends := make(chan string, size)
	woke := make(chan struct{}, 1)
	busy, asleep := 0, false
	args := []string{""}
	for {
	gather:
		for len(args) <= limitMost {
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
		want := min(size-busy, limitMost)
		if asleep {
			want = 0
		}
		args[0] = strconv.Itoa(want)
		reply, err := limitTurnScript.Exec(ctx, p.client, keys, args).AsStrSlice()
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
			go p.wake(ctx, woke)
		}
	}
}

// wake waits until there is a job.
func (p *limitPeer) wake(ctx context.Context, woke chan<- struct{}) {
	for ctx.Err() == nil {
		key := p.base + "waiting"
		command := p.client.B().Blmove().Source(key).Destination(key).Right().Right().Timeout(2).Build()
		if p.client.Do(ctx, command).Error() == nil {
			woke <- struct{}{}
			return
		}
	}
}

// request saves a job and waits for its event.
func (p *limitPeer) request(ctx context.Context, payload []byte) error {
	if err := p.subscribe(ctx); err != nil {
		return err
	}
	id, err := p.saveOne(payload)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.early[id] {
		delete(p.early, id)
		p.mu.Unlock()
		return nil
	}
	heard := make(chan struct{})
	p.waiters[id] = heard
	p.mu.Unlock()
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// subscribe listens to the queue's events, from the first request on.
func (p *limitPeer) subscribe(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiters[""] != nil {
		return nil
	}
	subscribed := make(chan struct{})
	p.waiters[""] = subscribed
	ctx = rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { close(subscribed) })
	ctx, cancel := context.WithCancel(ctx)
	end := p.stop
	p.stop = func() { cancel(); end() }
	p.flushers.Go(func() {
		_ = p.client.Receive(ctx, p.client.B().Subscribe().Channel(p.base+"events").Build(), func(m rueidis.PubSubMessage) {
			id, _, _ := strings.Cut(strings.TrimPrefix(m.Message, `{"id":"`), `"`)
			p.mu.Lock()
			defer p.mu.Unlock()
			if heard := p.waiters[id]; heard != nil {
				close(heard)
				delete(p.waiters, id)
				return
			}
			p.early[id] = true
		})
	})
	select {
	case <-subscribed:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("LIMIT could not subscribe")
	}
}

func (p *limitPeer) close() {
	p.stop()
	p.flushers.Wait()
	p.client.Close()
}
