package beequeue

import (
	"context"
	"crypto/sha1" //nolint:gosec // names a script in Redis, guards nothing
	"embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Every script has one func here, of the same name, and nothing else runs a
// script. Durations become milliseconds here.

//go:embed lua/*.lua
var luaFiles embed.FS

// scripts are the queue's scripts, ready to run, and the keys of each.
type scripts struct {
	turnSHA                               string // which Redis knows the turn script by
	saveSource                            string
	save, turn, remove, retry             *rueidis.Lua // named calls, see calls.go
	heartbeat, sweep, raise               *rueidis.Lua // harmless when repeated
	audit                                 *rueidis.Lua // harmless when repeated, or read only
	lookup, counts                        *rueidis.Lua // read only
	saveKeys, turnKeys, removeKeys        []string
	retryKeys, sweepKeys, raiseKeys       []string
	heartbeatKeys, lookupKeys, countsKeys []string
	auditKeys                             []string
}

func newScripts(k *keys) *scripts {
	named := func(name string) *rueidis.Lua {
		return rueidis.NewLuaScript(luaSource("call") + luaSource(name))
	}
	plain := func(name string) *rueidis.Lua {
		return rueidis.NewLuaScript(luaSource(name))
	}
	return &scripts{
		save:          named("save"),
		saveSource:    luaSource("call") + luaSource("save"),
		turn:          named("turn"),
		turnSHA:       fmt.Sprintf("%x", sha1.Sum([]byte(luaSource("call")+luaSource("turn")))),
		remove:        named("remove"),
		retry:         named("retry"),
		heartbeat:     plain("heartbeat"),
		sweep:         plain("sweep"),
		raise:         plain("raise"),
		audit:         plain("audit"),
		lookup:        plain("lookup"),
		counts:        plain("counts"),
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

// saveReply is what became of one job of a save.
type saveReply struct {
	id        string // the automatic id, or "" if it was saved under its own
	duplicate bool
	full      bool // it was not saved: as many jobs as may be are waiting
}

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
func (q *Queue) saveJobs(ctx context.Context, args []string, n int, notice func(error)) ([]saveReply, error) {
	r := q.plainly(q.scripts.save, q.scripts.saveKeys, args)
	if q.config.SaveReplicas > 0 {
		r = q.replicated(q.scripts.saveSource, q.scripts.saveKeys, args)
	}
	message, err := q.repeat(ctx, r, notice, false)
	if err != nil {
		return nil, err
	}
	answer, err := message.ToString()
	if err != nil {
		return nil, fmt.Errorf("save script: %w", err)
	}
	replies := make([]saveReply, n)
	if first, ok := strings.CutPrefix(answer, "="); ok {
		id, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("save script: unexpected reply %q", excerpt([]byte(answer)))
		}
		for i := range replies {
			replies[i].id = strconv.FormatInt(id+int64(i), 10)
		}
		return replies, nil
	}
	words := strings.Fields(answer)
	if len(words) != len(replies) {
		return nil, fmt.Errorf("save script: %d answers for %d jobs", len(words), len(replies))
	}
	for i, word := range words {
		switch word {
		case "+":
		case "-":
			replies[i].duplicate = true
		case "!":
			replies[i].full = true
		default:
			replies[i].id = word
		}
	}
	return replies, nil
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

// verdict is what turn.lua made of an outcome.
type verdict byte

const (
	recorded verdict = 'y'
	lost     verdict = 'l' // the job is another worker's, or was
	gone     verdict = 'g' // the job was removed
	changed  verdict = 'c' // the record of a plain success is not as it was
)

// claimed is a job to run.
type claimed struct {
	id, record string
	bare       bool // the record is yet to be read, or is gone
}

// turnReply is what a turn gives back.
type turnReply struct {
	verdicts []verdict // of each outcome
	jobs     []claimed
	claim    string // names the claim of the jobs
	more     bool   // more jobs are waiting
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
	message, err := q.repeat(ctx, q.plainly(q.scripts.turn, q.scripts.turnKeys, c.args), notice, c.reached)
	if err != nil {
		return turnReply{}, err
	}
	return q.readTurn(c, message)
}

// readTurn reads the reply of turn.lua.
func (q *Queue) readTurn(c *turnCall, message rueidis.RedisMessage) (turnReply, error) {
	values, err := message.AsStrSlice()
	if err != nil || len(values) < 3 || len(values)%2 != 1 || len(values[0]) != len(c.outcomes) {
		return turnReply{}, fmt.Errorf("turn script: unexpected reply of %d values: %w", len(values), err)
	}
	reply := turnReply{verdicts: make([]verdict, len(c.outcomes)), more: values[1] == "1", claim: c.claim}
	plain, other := 0, c.plain
	for i := range c.outcomes { // the plain ones came first
		at := &other
		if c.outcomes[i].what == turnPlain {
			at = &plain
		}
		reply.verdicts[i] = verdict(values[0][*at])
		*at++
	}
	if values[2] != "" {
		q.report(errors.New(values[2]), "publish events")
	}
	reply.jobs = make([]claimed, 0, (len(values)-3)/2)
	for i := 3; i < len(values); i += 2 {
		reply.jobs = append(reply.jobs, claimed{values[i], values[i+1], c.sparing})
	}
	return reply, nil
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
	}).ToArray()
	if err != nil {
		return err
	}
	for i := range records {
		if record, err := records[i].ToString(); err == nil {
			jobs[i].record, jobs[i].bare = record, false
		}
	}
	return nil
}

// heartbeat runs heartbeat.lua for jobs given as id, claim, id, claim, and
// returns the ids that are no longer token's.
func (q *Queue) heartbeat(ctx context.Context, token string, lease time.Duration, jobs []string) ([]string, error) {
	args := append([]string{token, text(lease)}, jobs...)
	message, err := q.run(ctx, q.scripts.heartbeat, q.scripts.heartbeatKeys, args)
	if err != nil {
		return nil, err
	}
	return message.AsStrSlice()
}

// sweepClaim is the claim under which the sweep gives its caller jobs to fail.
const sweepClaim = "sweep"

// sweepReply is what a stall check found.
type sweepReply struct {
	swept   bool          // false: somebody else checked lately
	next    time.Duration // until the next check is due
	stalled []string      // ids taken back to waiting
	failing []claimed     // taken back too often: the caller has to fail them
	cursors [3]string     // where the clean-up left off
}

// sweep runs sweep.lua.
func (q *Queue) sweep(ctx context.Context, cursors [3]string) (sweepReply, error) {
	for i, c := range cursors {
		if c == "" {
			cursors[i] = "0"
		}
	}
	args := []string{
		text(q.config.StallInterval), strconv.Itoa(q.config.MaxStalls), q.token, sweepClaim,
		cursors[0], cursors[1], cursors[2], text(callRetention),
	}
	message, err := q.run(ctx, q.scripts.sweep, q.scripts.sweepKeys, args)
	if err != nil {
		return sweepReply{}, err
	}
	values, err := message.ToArray()
	if err != nil || len(values) < 6 {
		return sweepReply{}, fmt.Errorf("sweep script: unexpected reply of %d values: %w", len(values), err)
	}
	next, _ := values[1].AsInt64()
	count, _ := values[5].AsInt64()
	words := make([]string, len(values))
	for i := range values {
		if i != 1 && i != 5 {
			if words[i], err = values[i].ToString(); err != nil {
				return sweepReply{}, fmt.Errorf("sweep script: value %d: %w", i, err)
			}
		}
	}
	if count < 0 || 6+count > int64(len(words)) {
		return sweepReply{}, fmt.Errorf("sweep script: %d ids announced, %d values", count, len(words))
	}
	reply := sweepReply{
		swept:   words[0] == "1",
		next:    time.Duration(max(0, next)) * time.Millisecond,
		cursors: [3]string{words[2], words[3], words[4]},
		stalled: words[6 : 6+count],
	}
	for rest := words[6+count:]; len(rest) >= 2; rest = rest[2:] {
		reply.failing = append(reply.failing, claimed{id: rest[0], record: rest[1]})
	}
	return reply, nil
}

// raiseReply is what a look at the delayed jobs found.
type raiseReply struct {
	raised int
	wait   time.Duration // until the next is due; negative if none is delayed
	now    time.Time     // the server's
}

// raise runs raise.lua.
func (q *Queue) raise(ctx context.Context) (raiseReply, error) {
	const most = 1000
	message, err := q.run(ctx, q.scripts.raise, q.scripts.raiseKeys, []string{strconv.Itoa(most)})
	if err != nil {
		return raiseReply{}, err
	}
	values, err := message.AsIntSlice()
	if err != nil || len(values) != 3 {
		return raiseReply{}, fmt.Errorf("raise script: unexpected reply of %d values: %w", len(values), err)
	}
	wait := time.Duration(min(values[1], int64(callRetention/time.Millisecond))) * time.Millisecond
	return raiseReply{raised: int(values[0]), wait: wait, now: time.UnixMilli(values[2])}, nil
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
		message, err := q.run(ctx, q.scripts.retry, q.scripts.retryKeys, append(q.control.next(), id))
		if err != nil {
			return err
		}
		switch answer, err := message.ToString(); answer {
		case "retried":
			return err
		case "not found":
			return ErrNotFound
		case "not failed":
			return ErrNotFailed
		default:
			return fmt.Errorf("retry script: unexpected reply %q: %w", answer, err)
		}
	})
}

// found is a job as Redis has it.
type found struct {
	record string
	state  State  // succeeded, failed, or "" for any other
	reason string // why the record cannot be read, if that failed the job
}

// lookup runs lookup.lua; ErrNotFound if there is no such job.
func (q *Queue) lookup(ctx context.Context, id string) (found, error) {
	message, err := q.ask(ctx, q.scripts.lookup, q.scripts.lookupKeys, []string{id})
	if err != nil {
		return found{}, err
	}
	values, err := message.AsStrSlice()
	switch {
	case err == nil && len(values) == 0:
		return found{}, ErrNotFound
	case err != nil || len(values) != 3:
		return found{}, fmt.Errorf("lookup script: unexpected reply of %d values: %w", len(values), err)
	}
	return found{record: values[0], state: State(values[1]), reason: values[2]}, nil
}

// view is where an id is.
type view struct {
	states []State
	record bool
	now    State // where it was put; "" if it was removed or left as it is
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
	values, err := message.AsStrSlice()
	if err != nil || len(values) != 2*len(ids) {
		return nil, fmt.Errorf("audit script: unexpected reply of %d values: %w", len(values), err)
	}
	names := []State{StateWaiting, StateActive, StateDelayed, StateSucceeded, StateFailed}
	views := make([]view, len(ids))
	for i := range views {
		counts := strings.Fields(values[2*i])
		if len(counts) != len(names)+1 {
			return nil, fmt.Errorf("audit script: unexpected reply %q", values[2*i])
		}
		v := &views[i]
		for k, name := range names {
			n, err := strconv.Atoi(counts[k])
			if err != nil {
				return nil, fmt.Errorf("audit script: %w", err)
			}
			v.states = append(v.states, slices.Repeat([]State{name}, n)...)
		}
		v.record = counts[len(names)] == "1"
		if now := values[2*i+1]; now != "removed" {
			v.now = State(now)
		}
	}
	return views, nil
}

// counts runs counts.lua.
func (q *Queue) counts(ctx context.Context) (Counts, error) {
	message, err := q.ask(ctx, q.scripts.counts, q.scripts.countsKeys, nil)
	if err != nil {
		return Counts{}, err
	}
	values, err := message.AsIntSlice()
	if err != nil || len(values) != 6 {
		return Counts{}, fmt.Errorf("counts script: unexpected reply of %d values: %w", len(values), err)
	}
	return Counts{
		Waiting: values[0], Active: values[1], Delayed: values[2],
		Succeeded: values[3], Failed: values[4], NewestJob: values[5],
	}, nil
}

// destroy deletes the queue's keys, Bee-Queue's and ours.
func (q *Queue) destroy(ctx context.Context) (int64, error) {
	k := &q.keys
	return q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Del().Key(k.id, k.jobs, k.stallBlock, k.stalling, k.waiting, k.active, k.succeeded, k.failed, k.delayed,
			k.workers, k.owners, k.stalls, k.calls, k.reasons).Build()
	}).AsInt64()
}

// text gives a duration as scripts take it, in milliseconds.
func text(d time.Duration) string {
	return strconv.FormatInt(millis(d), 10)
}
