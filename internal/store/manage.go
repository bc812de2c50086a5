package store

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// A RaiseReply is what a look at the delayed jobs found.
type RaiseReply struct {
	Raised  int
	Wait    time.Duration // until the next is due; negative if none is delayed
	Now     time.Time     // the server's
	Waiting int64         // how many jobs wait now
}

// Raise moves delayed jobs that are due to waiting, at most 1,000 of them.
func (s *Store) Raise(ctx context.Context) (RaiseReply, error) {
	const most = 1000
	message, err := s.run(ctx, s.scripts.raise, s.raiseKeys, []string{strconv.Itoa(most)})
	if err != nil {
		return RaiseReply{}, err
	}
	return readRaise(message)
}

// readRaise reads the reply of raise.lua.
func readRaise(message rueidis.RedisMessage) (RaiseReply, error) {
	values, err := readNumbers("raise script", message, 4)
	if err != nil {
		return RaiseReply{}, err
	}
	raised, wait, now, waiting := values[0], values[1], values[2], values[3]
	if raised < 0 || waiting < 0 || now < 0 || now > wire.MaxMillis {
		return RaiseReply{}, badReply("raise script", "%v", values)
	}
	return RaiseReply{Raised: int(raised), Wait: milliseconds(max(-1, wait)), Now: time.UnixMilli(now), Waiting: waiting}, nil
}

// Remove removes a job, whatever state it is in.
func (s *Store) Remove(ctx context.Context, l *Lane, id string) error {
	return l.Serialized(ctx, func() error {
		_, err := s.run(ctx, s.scripts.remove, s.removeKeys, append(l.next(), id))
		return err
	})
}

// Retry puts a job that failed back into waiting. It returns ErrNotFound or ErrNotFailed if
// there is nothing to retry.
func (s *Store) Retry(ctx context.Context, l *Lane, id string) error {
	return l.Serialized(ctx, func() error {
		r := s.eval(s.scripts.retry, s.retryKeys, append(l.next(), id))
		var answer error
		_, err := s.repeat(ctx, reading(r, func(message rueidis.RedisMessage) (err error) {
			answer, err = readRetry(message)
			return err
		}), retryPolicy{})
		if err != nil {
			return err
		}
		return answer
	})
}

// readRetry reads the reply of retry.lua: nil, or why the job was not retried.
func readRetry(message rueidis.RedisMessage) (answer, err error) {
	word, err := readText("retry script", message)
	if err != nil {
		return nil, err
	}
	switch word {
	case "retried":
		return nil, nil
	case "not found":
		return ErrNotFound, nil
	case "not failed":
		return ErrNotFailed, nil
	}
	return nil, badReply("retry script", "%s", wire.Excerpt([]byte(word)))
}

// The states of jobs, which are also the names of keys.
const (
	stateSucceeded = "succeeded"
	stateFailed    = "failed"
)

// A Found is a job as Redis has it.
type Found struct {
	Record string
	Ended  string // "succeeded", "failed", or "" if the job is in another state
	Reason string // why the record cannot be read, if that failed the job
}

// Lookup reads a job. It returns ErrNotFound if there is no such job.
func (s *Store) Lookup(ctx context.Context, id string) (Found, error) {
	message, err := s.ask(ctx, s.scripts.lookup, s.lookupKeys, []string{id})
	if err != nil {
		return Found{}, err
	}
	return readLookup(message)
}

// readLookup reads the reply of lookup.lua.
func readLookup(message rueidis.RedisMessage) (Found, error) {
	values, err := readTexts("lookup script", message)
	switch {
	case err != nil:
		return Found{}, err
	case len(values) == 0:
		return Found{}, ErrNotFound
	case len(values) != 3:
		return Found{}, badReply("lookup script", "%d values", len(values))
	}
	f := Found{Record: values[0], Ended: values[1], Reason: values[2]}
	if f.Ended != "" && f.Ended != stateSucceeded && f.Ended != stateFailed {
		return Found{}, badReply("lookup script", "state %s", wire.Excerpt([]byte(f.Ended)))
	}
	return f, nil
}

// A View is where an id is.
type View struct {
	States []string
	Record bool
	Now    string // where it was put; "" if it was removed or left as it is
}

// auditStates are the states in the order of audit.lua's reply.
func auditStates() []string {
	return []string{"waiting", "active", "delayed", stateSucceeded, stateFailed}
}

// mostCopies is how many copies of an id in one list a view tells of.
const mostCopies = 100

// Inspect looks where ids are, in one step, and mends what is wrong if it is to.
func (s *Store) Inspect(ctx context.Context, mend bool, ids []string) ([]View, error) {
	args := append([]string{""}, ids...)
	if mend {
		args[0] = "1"
	}
	message, err := s.run(ctx, s.scripts.audit, s.auditKeys, args)
	if err != nil {
		return nil, err
	}
	return readViews(message, len(ids))
}

// readViews reads the reply of audit.lua for n ids.
func readViews(message rueidis.RedisMessage, n int) ([]View, error) {
	values, err := readTexts("audit script", message)
	if err != nil {
		return nil, err
	}
	if len(values) != 2*n {
		return nil, badReply("audit script", "%d values for %d ids", len(values), n)
	}
	views := make([]View, n)
	for i := range views {
		if err := views[i].read(strings.Fields(values[2*i]), values[2*i+1]); err != nil {
			return nil, err
		}
	}
	return views, nil
}

func (v *View) read(counts []string, now string) error {
	names := auditStates()
	if len(counts) != len(names)+1 {
		return badReply("audit script", "%d counts", len(counts))
	}
	for i, name := range names {
		n, err := strconv.Atoi(counts[i])
		if err != nil || n < 0 {
			return badReply("audit script", "count %s", wire.Excerpt([]byte(counts[i])))
		}
		v.States = append(v.States, slices.Repeat([]string{name}, min(n, mostCopies))...)
	}
	v.Record = counts[len(names)] == "1"
	switch {
	case now == "" || now == "removed":
	case slices.Contains(names, now):
		v.Now = now
	default:
		return badReply("audit script", "state %s", wire.Excerpt([]byte(now)))
	}
	return nil
}

// Counts are how many jobs are in each state, and the newest automatic id.
type Counts struct{ Waiting, Active, Delayed, Succeeded, Failed, NewestJob int64 }

// Counts counts jobs, in one step.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	message, err := s.ask(ctx, s.scripts.counts, s.countsKeys, nil)
	if err != nil {
		return Counts{}, err
	}
	return readCounts(message)
}

// readCounts reads the reply of counts.lua.
func readCounts(message rueidis.RedisMessage) (Counts, error) {
	values, err := readNumbers("counts script", message, 6)
	if err != nil {
		return Counts{}, err
	}
	return Counts{values[0], values[1], values[2], values[3], values[4], values[5]}, nil
}

// Destroy deletes the queue's keys, Bee-Queue's and ours, and returns how many there were.
// It does so in the background: DEL holds Redis for 0.4 s where a million jobs are.
func (s *Store) Destroy(ctx context.Context) (int64, error) {
	return s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Unlink().Key(s.keys.Stored()...).Build()
	}).AsInt64()
}

// Publish sends an event, by way of the node that has the queue: so events of a cluster
// arrive in order, also with those that scripts publish.
func (s *Store) Publish(ctx context.Context, event string) error {
	return s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Publish().Channel(s.keys.Name(Events)).Message(event).Build().SetSlot(s.keys.base)
	}).Error()
}
