package beequeue

import (
	"context"
	"crypto/sha1" //nolint:gosec // names a script in Redis, guards nothing
	"embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// Every script has one func here, of the same name, and nothing else runs a
// script. Durations become milliseconds here.

//go:embed lua/*.lua
var luaFiles embed.FS

// programs are the scripts themselves, ready to run.
type programs struct {
	turnSHA                   string // which Redis knows the turn script by
	saveSource                string
	save, turn, remove, retry *rueidis.Lua // named calls, see calls.go
	heartbeat, sweep, raise   *rueidis.Lua // harmless when repeated
	audit                     *rueidis.Lua // harmless when repeated, or read only
	lookup, counts            *rueidis.Lua // read only
}

// loadPrograms gives the scripts, which all queues of a process share.
var loadPrograms = sync.OnceValue(func() *programs { //nolint:gochecknoglobals // does not change
	named := func(name string) *rueidis.Lua {
		return rueidis.NewLuaScript(luaSource("call") + luaSource(name))
	}
	plain := func(name string) *rueidis.Lua {
		return rueidis.NewLuaScript(luaSource(name))
	}
	turn := luaSource("call") + luaSource("turn")
	return &programs{
		save:       named("save"),
		saveSource: luaSource("call") + luaSource("save"),
		turn:       rueidis.NewLuaScript(turn),
		turnSHA:    fmt.Sprintf("%x", sha1.Sum([]byte(turn))), //nolint:gosec // as above
		remove:     named("remove"),
		retry:      named("retry"),
		heartbeat:  plain("heartbeat"),
		sweep:      plain("sweep"),
		raise:      plain("raise"),
		audit:      plain("audit"),
		lookup:     plain("lookup"),
		counts:     plain("counts"),
	}
})

// scripts are the programs, and the keys of each in one queue.
type scripts struct {
	*programs
	saveKeys, turnKeys, removeKeys        []string
	retryKeys, sweepKeys, raiseKeys       []string
	heartbeatKeys, lookupKeys, countsKeys []string
	auditKeys                             []string
}

func newScripts(k *keys) *scripts {
	return &scripts{
		programs:      loadPrograms(),
		saveKeys:      []string{k.calls, k.id, k.jobs, k.waiting, k.delayed, k.earlierDelayed},
		turnKeys:      []string{k.calls, k.jobs, k.waiting, k.active, k.owners, k.workers, k.stalling, k.stalls, k.succeeded, k.failed, k.delayed, k.reasons, k.events, k.earlierDelayed},
		removeKeys:    []string{k.calls, k.succeeded, k.failed, k.waiting, k.active, k.stalling, k.jobs, k.delayed, k.owners, k.stalls, k.reasons},
		retryKeys:     []string{k.calls, k.failed, k.waiting, k.jobs, k.reasons},
		sweepKeys:     []string{k.stallBlock, k.stalling, k.waiting, k.active, k.owners, k.workers, k.stalls, k.jobs, k.calls, k.reasons, k.succeeded, k.failed},
		raiseKeys:     []string{k.delayed, k.waiting},
		heartbeatKeys: []string{k.workers, k.owners, k.stalling},
		lookupKeys:    []string{k.jobs, k.succeeded, k.failed, k.reasons},
		auditKeys:     []string{k.jobs, k.waiting, k.active, k.delayed, k.succeeded, k.failed, k.owners, k.workers, k.stalls, k.stalling, k.reasons},
		countsKeys:    []string{k.waiting, k.active, k.delayed, k.succeeded, k.failed, k.id},
	}
}

func luaSource(name string) string {
	source, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // not input: the file is part of the package
	}
	return string(source)
}

// callRetention is how long the sweep remembers callers that have gone silent.
// A call is never repeated that long after its first try.
const callRetention = time.Hour

// prepareSave makes the lane's next call of save.lua. Jobs that get automatic ids and
// are not delayed need no more than their records.
func prepareSave(l *lane, batch []*saveItem, renew bool, most int) []string {
	special := func(item *saveItem) bool { return item.id != "" || item.due != "" }
	plain, renewal := "1", ""
	if slices.ContainsFunc(batch, special) {
		plain = ""
	}
	if renew {
		renewal = "1"
	}
	limit := ""
	if most > 0 {
		limit = strconv.Itoa(most)
	}
	args := append(l.next(), renewal, plain, limit)
	for _, item := range batch {
		if plain != "" {
			args = append(args, item.record)
		} else {
			args = append(args, item.id, item.record, item.due)
		}
	}
	l.args = args
	return args
}

// saveJobs runs save.lua for n jobs.
func (q *Queue) saveJobs(ctx context.Context, args []string, n int, notice func(error), reached bool) ([]saveReply, error) {
	r := q.plainly(q.scripts.save, q.scripts.saveKeys, args)
	if q.config.SaveReplicas > 0 {
		r = q.replicated(q.scripts.saveSource, q.scripts.saveKeys, args)
	}
	var replies []saveReply
	_, err := q.repeat(ctx, reading(r, func(message rueidis.RedisMessage) (err error) {
		replies, err = readSave(message, n)
		return err
	}), manner{notice: notice, reached: reached})
	return replies, err
}

// What turn.lua does with a job at the end of its run.
const (
	turnPlain      = "plain" // succeeded, and nothing but that and the result is new
	turnSucceeded  = "succeeded"
	turnFailed     = "failed"
	turnRemoved    = "removed"
	turnRetrying   = "retrying"
	turnUnreadable = "unreadable"
	turnReturned   = "returned"
)

// turnOutcome is the end of one run, as turn.lua takes it.
type turnOutcome struct {
	id, claim string
	what      string        // one of the constants above
	field     int           // of a plain success: where `"status":` is in the record, from 1
	text      string        // the new record, the plain result, or why the old record cannot be read
	delay     time.Duration // before the next run
	event     string        // to publish; "" for nothing; the script writes a plain success's own
}

// turnCall is one call of turn.lua, which may be made more than once.
type turnCall struct {
	args     []string // the lane's
	claim    string   // names the claim of the jobs
	outcomes []turnOutcome
	plain    int  // outcomes that are plain successes
	sparing  bool // it leaves out the records of the jobs it claims
	reached  bool // it was made before, and may have reached Redis
}

// prepareTurn makes the lane's next call, which records outcomes, claims up to want
// jobs, and renews token's lease, or ends it if lease is 0, or leaves it if lease is
// negative. If want is negative, it claims jobs only if token has made turns before,
// and says that more are waiting if not. A sparing call leaves out the records.
func (q *Queue) prepareTurn(l *lane, token string, lease time.Duration, want int, sparing bool, outcomes []turnOutcome) turnCall {
	args := l.next()
	c := turnCall{claim: args[1], outcomes: outcomes, sparing: sparing}
	renewal, publishing, bare := "", "1", ""
	if sparing {
		bare = "1"
	}
	for i := range outcomes {
		if outcomes[i].what == turnPlain {
			c.plain++
		}
	}
	if lease >= 0 {
		renewal = text(lease)
	}
	if q.config.NoEvents {
		publishing = ""
	}
	args = append(args, token, renewal, strconv.Itoa(want), strconv.Itoa(q.config.MaxStalls), publishing, bare, "")
	groupsAt := len(args) - 1
	groups, size := 0, 0
	var last *turnOutcome
	for i := range outcomes {
		o := &outcomes[i]
		if o.what != turnPlain {
			continue
		}
		if last == nil || o.claim != last.claim || o.field != last.field {
			if last != nil {
				args[len(args)-1] = strconv.Itoa(size)
			}
			args = append(args, o.claim, strconv.Itoa(o.field), "")
			groups, size = groups+1, 0
		}
		last = o
		size++
	}
	if last != nil {
		args[len(args)-1] = strconv.Itoa(size)
	}
	args[groupsAt] = strconv.Itoa(groups)
	for i := range outcomes {
		if o := &outcomes[i]; o.what == turnPlain {
			args = append(args, o.id, o.text)
		}
	}
	for i := range outcomes {
		if o := &outcomes[i]; o.what != turnPlain {
			args = append(args, o.id, o.claim, o.what, o.text, text(o.delay), o.event)
		}
	}
	l.args, c.args = args, args
	return c
}

// claimNothing has the call, when it is made again, claim no jobs. It still gives
// those that it has claimed already.
func (c *turnCall) claimNothing() { c.args[4] = "0" }

// turn runs turn.lua.
func (q *Queue) turn(ctx context.Context, c *turnCall, notice func(error)) (turnReply, error) {
	var reply turnReply
	_, err := q.repeat(ctx, reading(q.plainly(q.scripts.turn, q.scripts.turnKeys, c.args), func(message rueidis.RedisMessage) (err error) {
		reply, err = readTurn(c, message)
		return err
	}), manner{notice: notice, reached: c.reached})
	if err != nil {
		return turnReply{}, err
	}
	q.tellUnpublished(reply)
	return reply, nil
}

// tellUnpublished tells why the turn's events could not be published, if they could not.
func (q *Queue) tellUnpublished(reply turnReply) {
	if reply.unpublished != "" {
		q.report(errors.New(reply.unpublished), "publish events")
	}
}

// readRecords reads the records of jobs that were claimed without. Those that are gone
// stay bare.
func (q *Queue) readRecords(ctx context.Context, jobs []claimed) error {
	ids := make([]string, len(jobs))
	for i := range jobs {
		ids[i] = jobs[i].id
	}
	records, err := q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Hmget().Key(q.keys.jobs).Field(ids...).Build()
	}).ToMessage()
	if err != nil {
		return err
	}
	return readRecords(records, jobs)
}

// heartbeat runs heartbeat.lua for jobs given as id, claim, id, claim, and
// returns the ids that are no longer token's.
func (q *Queue) heartbeat(ctx context.Context, token string, lease time.Duration, jobs []string) ([]string, error) {
	args := append([]string{token, text(lease)}, jobs...)
	r := q.plainly(q.scripts.heartbeat, q.scripts.heartbeatKeys, args)
	message, err := q.repeat(ctx, r, manner{longest: q.probation() / 4})
	if err != nil {
		return nil, err
	}
	return readTexts("heartbeat script", message)
}

// sweepClaim is the claim under which the sweep gives its caller jobs to fail.
const sweepClaim = "sweep"

// How sweep.lua looks for jobs of lost workers.
const (
	sweepTake    = "take"    // and takes them back
	sweepDoubt   = "doubt"   // and tells of them
	sweepConfirm = "confirm" // among those it has told of, and takes them back
)

// sweep runs sweep.lua.
func (q *Queue) sweep(ctx context.Context, cursors [3]string, how string, ids ...string) (sweepReply, error) {
	for i, c := range cursors {
		if c == "" {
			cursors[i] = "0"
		}
	}
	args := append([]string{
		text(q.config.StallInterval), strconv.Itoa(q.config.MaxStalls), q.token, sweepClaim,
		cursors[0], cursors[1], cursors[2], text(callRetention), how,
	}, ids...)
	message, err := q.run(ctx, q.scripts.sweep, q.scripts.sweepKeys, args)
	if err != nil {
		return sweepReply{}, err
	}
	return readSweep(message)
}

// raise runs raise.lua.
func (q *Queue) raise(ctx context.Context) (raiseReply, error) {
	const most = 1000
	message, err := q.run(ctx, q.scripts.raise, q.scripts.raiseKeys, []string{strconv.Itoa(most)})
	if err != nil {
		return raiseReply{}, err
	}
	return readRaise(message)
}

// remove runs remove.lua.
func (q *Queue) remove(ctx context.Context, id string) error {
	return q.control.serialized(ctx, func() error {
		_, err := q.run(ctx, q.scripts.remove, q.scripts.removeKeys, append(q.control.next(), id))
		return err
	})
}

// retry runs retry.lua.
func (q *Queue) retry(ctx context.Context, id string) error {
	return q.control.serialized(ctx, func() error {
		r := q.plainly(q.scripts.retry, q.scripts.retryKeys, append(q.control.next(), id))
		var answer error
		_, err := q.repeat(ctx, reading(r, func(message rueidis.RedisMessage) (err error) {
			answer, err = readRetry(message)
			return err
		}), manner{})
		if err != nil {
			return err
		}
		return answer
	})
}

// lookup runs lookup.lua; ErrNotFound if there is no such job.
func (q *Queue) lookup(ctx context.Context, id string) (found, error) {
	message, err := q.ask(ctx, q.scripts.lookup, q.scripts.lookupKeys, []string{id})
	if err != nil {
		return found{}, err
	}
	return readLookup(message)
}

// look runs audit.lua.
func (q *Queue) look(ctx context.Context, mend bool, ids []string) ([]view, error) {
	args := append([]string{""}, ids...)
	if mend {
		args[0] = "1"
	}
	message, err := q.run(ctx, q.scripts.audit, q.scripts.auditKeys, args)
	if err != nil {
		return nil, err
	}
	return readViews(message, len(ids))
}

// counts runs counts.lua.
func (q *Queue) counts(ctx context.Context) (Counts, error) {
	message, err := q.ask(ctx, q.scripts.counts, q.scripts.countsKeys, nil)
	if err != nil {
		return Counts{}, err
	}
	return readCounts(message)
}

// destroy deletes the queue's keys, Bee-Queue's and ours.
func (q *Queue) destroy(ctx context.Context) (int64, error) {
	k := &q.keys
	return q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		// In the background: DEL holds Redis for 0.4 s where a million jobs are.
		return b.Unlink().Key(k.id, k.jobs, k.stallBlock, k.stalling, k.waiting, k.active, k.succeeded, k.failed, k.delayed,
			k.workers, k.owners, k.stalls, k.calls, k.reasons).Build()
	}).AsInt64()
}

// text gives a duration as scripts take it, in milliseconds.
func text(d time.Duration) string {
	return strconv.FormatInt(wire.Millis(d), 10)
}
