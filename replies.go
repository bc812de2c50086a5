package beequeue

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// What scripts answer, and how it is read. A reply is taken as it should be or not at
// all: what stands between a program and its Redis may change what it likes.

// reading has a request fail if its reply cannot be read. Then it is made again, under
// its name: what a script did is not known from such a reply.
func reading(r request, read func(rueidis.RedisMessage) error) request {
	return func(ctx context.Context) (rueidis.RedisMessage, error) {
		message, err := r(ctx)
		if err == nil || rueidis.IsRedisNil(err) {
			err = read(message)
		}
		return message, err
	}
}

// badReply is the error for what a script, or a command, should not have answered.
func badReply(to, format string, args ...any) error {
	return fmt.Errorf("%s: unexpected reply: %s", to, fmt.Sprintf(format, args...))
}

// readText reads a string.
func readText(to string, message rueidis.RedisMessage) (string, error) {
	if !message.IsString() {
		return "", badReply(to, "no string")
	}
	return message.ToString()
}

// readTexts reads an array of strings.
func readTexts(to string, message rueidis.RedisMessage) ([]string, error) {
	values, err := readArray(to, message)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(values))
	for i := range values {
		if texts[i], err = readText(to, values[i]); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func readArray(to string, message rueidis.RedisMessage) ([]rueidis.RedisMessage, error) {
	if !message.IsArray() {
		return nil, badReply(to, "no array")
	}
	return message.ToArray()
}

// readNumbers reads an array of so many integers, which may be written as text.
func readNumbers(to string, message rueidis.RedisMessage, n int) ([]int64, error) {
	values, err := readArray(to, message)
	if err != nil {
		return nil, err
	}
	if len(values) != n {
		return nil, badReply(to, "%d values", len(values))
	}
	numbers := make([]int64, n)
	for i := range values {
		if numbers[i], err = values[i].AsInt64(); err != nil {
			return nil, badReply(to, "value %d is no number", i+1)
		}
	}
	return numbers, nil
}

// saveReply is what became of one job of a save.
type saveReply struct {
	id        string // the automatic id, or "" if it was saved under its own
	duplicate bool
	full      bool // it was not saved: as many jobs as may be are waiting
}

// readSave reads the reply of save.lua for n jobs.
func readSave(message rueidis.RedisMessage, n int) ([]saveReply, error) {
	answer, err := readText("save script", message)
	if err != nil {
		return nil, err
	}
	replies := make([]saveReply, n)
	if first, ok := strings.CutPrefix(answer, "="); ok {
		id, err := strconv.ParseInt(first, 10, 64)
		if err != nil || id > math.MaxInt64-int64(n) {
			return nil, badReply("save script", "%s", wire.Excerpt([]byte(answer)))
		}
		for i := range replies {
			replies[i].id = strconv.FormatInt(id+int64(i), 10)
		}
		return replies, nil
	}
	words := strings.Fields(answer)
	if len(words) != n {
		return nil, badReply("save script", "%d answers for %d jobs", len(words), n)
	}
	for i, word := range words {
		switch word {
		case "+":
		case "-":
			replies[i].duplicate = true
		case "!":
			replies[i].full = true
		default:
			if _, err := strconv.ParseInt(word, 10, 64); err != nil {
				return nil, badReply("save script", "%s", wire.Excerpt([]byte(word)))
			}
			replies[i].id = word
		}
	}
	return replies, nil
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
	verdicts    []verdict // of each outcome
	jobs        []claimed
	claim       string // names the claim of the jobs
	more        bool   // more jobs are waiting
	unpublished string // why events could not be published
}

// readTurn reads the reply of turn.lua.
func readTurn(c *turnCall, message rueidis.RedisMessage) (turnReply, error) {
	values, err := readTexts("turn script", message)
	if err != nil {
		return turnReply{}, err
	}
	if len(values) < 3 || len(values)%2 != 1 || len(values[0]) != len(c.outcomes) {
		return turnReply{}, badReply("turn script", "%d values for %d outcomes", len(values), len(c.outcomes))
	}
	reply := turnReply{
		verdicts: make([]verdict, len(c.outcomes)), more: values[1] == "1", claim: c.claim, unpublished: values[2],
	}
	plain, other := 0, c.plain
	for i := range c.outcomes { // the plain ones came first
		at := &other
		if c.outcomes[i].what == turnPlain {
			at = &plain
		}
		v := verdict(values[0][*at])
		switch {
		case v == recorded, v == lost, v == gone, v == changed && at == &plain:
			reply.verdicts[i] = v
		default:
			return turnReply{}, badReply("turn script", "verdict %q", v)
		}
		*at++
	}
	reply.jobs = make([]claimed, 0, (len(values)-3)/2)
	for i := 3; i < len(values); i += 2 {
		reply.jobs = append(reply.jobs, claimed{values[i], values[i+1], c.sparing})
	}
	return reply, nil
}

// readRecords reads the reply of HMGET into jobs that were claimed without their
// records. Those that have none stay bare.
func readRecords(message rueidis.RedisMessage, jobs []claimed) error {
	records, err := readArray("HMGET", message)
	if err != nil {
		return err
	}
	if len(records) != len(jobs) {
		return badReply("HMGET", "%d records for %d jobs", len(records), len(jobs))
	}
	for i := range records {
		if record, err := records[i].ToString(); err == nil {
			jobs[i].record, jobs[i].bare = record, false
		}
	}
	return nil
}

// sweepReply is what a stall check found.
type sweepReply struct {
	swept   bool          // false: somebody else checked lately
	next    time.Duration // until the next check is due
	ids     []string      // taken back to waiting, or doubted
	failing []claimed     // taken back too often: the caller has to fail them
	cursors [3]string     // where the clean-up left off
}

// readSweep reads the reply of sweep.lua.
func readSweep(message rueidis.RedisMessage) (sweepReply, error) {
	const nextAt, countAt, first = 1, 5, 6
	values, err := readArray("sweep script", message)
	if err != nil {
		return sweepReply{}, err
	}
	if len(values) < first {
		return sweepReply{}, badReply("sweep script", "%d values", len(values))
	}
	words := make([]string, len(values))
	var next, count int64
	for i := range values {
		switch i {
		case nextAt:
			next, err = values[i].AsInt64()
		case countAt:
			count, err = values[i].AsInt64()
		default:
			words[i], err = readText("sweep script", values[i])
		}
		if err != nil {
			return sweepReply{}, badReply("sweep script", "value %d", i+1)
		}
	}
	rest := words[first:]
	if count < 0 || count > int64(len(rest)) || (int64(len(rest))-count)%2 != 0 {
		return sweepReply{}, badReply("sweep script", "%d ids of %d values", count, len(values))
	}
	reply := sweepReply{
		swept:   words[0] == "1",
		next:    milliseconds(max(0, next)),
		cursors: [3]string{words[2], words[3], words[4]},
		ids:     rest[:count],
	}
	for pair := range slices.Chunk(rest[count:], 2) {
		reply.failing = append(reply.failing, claimed{id: pair[0], record: pair[1]})
	}
	return reply, nil
}

// milliseconds makes a duration of what a script says, at most callRetention: that it
// was longer, nobody has to know.
func milliseconds(ms int64) time.Duration {
	return time.Duration(min(ms, callRetention.Milliseconds())) * time.Millisecond
}

// raiseReply is what a look at the delayed jobs found.
type raiseReply struct {
	raised  int
	wait    time.Duration // until the next is due; negative if none is delayed
	now     time.Time     // the server's
	waiting int64         // how many jobs wait now
}

// readRaise reads the reply of raise.lua.
func readRaise(message rueidis.RedisMessage) (raiseReply, error) {
	values, err := readNumbers("raise script", message, 4)
	if err != nil {
		return raiseReply{}, err
	}
	raised, wait, now, waiting := values[0], values[1], values[2], values[3]
	if raised < 0 || waiting < 0 || now < 0 || now > wire.MaxMillis {
		return raiseReply{}, badReply("raise script", "%v", values)
	}
	return raiseReply{raised: int(raised), wait: milliseconds(max(-1, wait)), now: time.UnixMilli(now), waiting: waiting}, nil
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

// found is a job as Redis has it.
type found struct {
	record string
	state  State  // succeeded, failed, or "" for any other
	reason string // why the record cannot be read, if that failed the job
}

// readLookup reads the reply of lookup.lua; ErrNotFound if there is no such job.
func readLookup(message rueidis.RedisMessage) (found, error) {
	values, err := readTexts("lookup script", message)
	switch {
	case err != nil:
		return found{}, err
	case len(values) == 0:
		return found{}, ErrNotFound
	case len(values) != 3:
		return found{}, badReply("lookup script", "%d values", len(values))
	}
	f := found{record: values[0], state: State(values[1]), reason: values[2]}
	if f.state != "" && f.state != StateSucceeded && f.state != StateFailed {
		return found{}, badReply("lookup script", "state %s", wire.Excerpt([]byte(f.state)))
	}
	return f, nil
}

// view is where an id is.
type view struct {
	states []State
	record bool
	now    State // where it was put; "" if it was removed or left as it is
}

// auditStates are the states in the order of audit.lua's reply.
func auditStates() []State {
	return []State{StateWaiting, StateActive, StateDelayed, StateSucceeded, StateFailed}
}

// mostCopies is how many copies of an id in one list a view tells of.
const mostCopies = 100

// readViews reads the reply of audit.lua for n ids.
func readViews(message rueidis.RedisMessage, n int) ([]view, error) {
	values, err := readTexts("audit script", message)
	if err != nil {
		return nil, err
	}
	if len(values) != 2*n {
		return nil, badReply("audit script", "%d values for %d ids", len(values), n)
	}
	views := make([]view, n)
	for i := range views {
		if err := views[i].read(strings.Fields(values[2*i]), values[2*i+1]); err != nil {
			return nil, err
		}
	}
	return views, nil
}

func (v *view) read(counts []string, now string) error {
	names := auditStates()
	if len(counts) != len(names)+1 {
		return badReply("audit script", "%d counts", len(counts))
	}
	for i, name := range names {
		n, err := strconv.Atoi(counts[i])
		if err != nil || n < 0 {
			return badReply("audit script", "count %s", wire.Excerpt([]byte(counts[i])))
		}
		v.states = append(v.states, slices.Repeat([]State{name}, min(n, mostCopies))...)
	}
	v.record = counts[len(names)] == "1"
	switch {
	case now == "" || now == "removed":
	case slices.Contains(names, State(now)):
		v.now = State(now)
	default:
		return badReply("audit script", "state %s", wire.Excerpt([]byte(now)))
	}
	return nil
}

// readCounts reads the reply of counts.lua.
func readCounts(message rueidis.RedisMessage) (Counts, error) {
	values, err := readNumbers("counts script", message, 6)
	if err != nil {
		return Counts{}, err
	}
	return Counts{
		Waiting: values[0], Active: values[1], Delayed: values[2],
		Succeeded: values[3], Failed: values[4], NewestJob: values[5],
	}, nil
}

// readPage reads the reply of a scan, each of whose elements is so many values, of which
// the first is an id.
func readPage(message rueidis.RedisMessage, width int) (cursor string, ids []string, err error) {
	const scan = "SCAN"
	reply, err := readArray(scan, message)
	if err != nil {
		return "", nil, err
	}
	if len(reply) != 2 {
		return "", nil, badReply(scan, "%d values", len(reply))
	}
	if cursor, err = readText(scan, reply[0]); err != nil {
		return "", nil, err
	}
	elements, err := readArray(scan, reply[1])
	if err != nil {
		return "", nil, err
	}
	if len(elements)%width != 0 {
		return "", nil, badReply(scan, "%d elements", len(elements))
	}
	for i := 0; i < len(elements); i += width {
		id, err := readText(scan, elements[i])
		if err != nil {
			return "", nil, err
		}
		ids = append(ids, id)
	}
	return cursor, ids, nil
}
