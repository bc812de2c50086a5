package store

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// What turn.lua does with a job at the end of its run.
const (
	EndPlain      = "plain" // succeeded, and nothing but that and the result is new
	EndSucceeded  = "succeeded"
	EndFailed     = "failed"
	EndRemoved    = "removed"
	EndRetrying   = "retrying"
	EndUnreadable = "unreadable"
	EndReturned   = "returned"
)

// An Outcome is the end of one run, as turn.lua takes it.
type Outcome struct {
	ID, Claim string
	Kind      string        // one of the constants above
	StatusAt  int           // of a plain success: where `"status":` is in the record, from 1
	Payload   string        // the new record, the plain result, or why the old record cannot be read
	Delay     time.Duration // before the next run
	Event     string        // to publish; "" for nothing; the script writes that of a plain success
}

// A TurnCall is one call of turn.lua, which may be made more than once.
type TurnCall struct {
	// Reached says that the call was made before, and may have reached Redis.
	Reached bool
	// OmitRecords has the reply leave out the records of the jobs it claims.
	OmitRecords bool

	args     []string // the lane's
	claim    string   // names the claim of the jobs
	outcomes []Outcome
	plain    int // outcomes that are plain successes
}

// A Turn is what a worker asks of one turn.
type Turn struct {
	Token       string        // the worker
	Lease       time.Duration // renews its lease; zero ends it, negative leaves it
	Want        int           // jobs to claim; negative: that many, if Token has made turns before
	OmitRecords bool          // leave out the records of the claimed jobs
	Outcomes    []Outcome     // of runs that have ended
}

// PrepareTurn returns the lane's next call. If the turn wants a negative number of jobs and
// its worker has made no turn before, the reply says that more are waiting, and claims none.
func (s *Store) PrepareTurn(l *Lane, t Turn) TurnCall {
	args := l.next()
	c := TurnCall{claim: args[1], outcomes: t.Outcomes, OmitRecords: t.OmitRecords}
	lease, publish, omit := "", "1", ""
	if t.OmitRecords {
		omit = "1"
	}
	for i := range t.Outcomes {
		if t.Outcomes[i].Kind == EndPlain {
			c.plain++
		}
	}
	if t.Lease >= 0 {
		lease = msText(t.Lease)
	}
	if s.settings.NoEvents {
		publish = ""
	}
	args = append(args, t.Token, lease, strconv.Itoa(t.Want), strconv.Itoa(s.settings.MaxStalls), publish, omit, "")
	args = appendPlain(args, t.Outcomes)
	for i := range t.Outcomes {
		if o := &t.Outcomes[i]; o.Kind != EndPlain {
			args = append(args, o.ID, o.Claim, o.Kind, o.Payload, msText(o.Delay), o.Event)
		}
	}
	l.args, c.args = args, args
	return c
}

// appendPlain appends the plain successes, and writes the number of their groups into the
// last argument that is there. Neighbours of one claim make a group if their statuses are
// at the same place.
func appendPlain(args []string, outcomes []Outcome) []string {
	groupsAt := len(args) - 1
	groups, size := 0, 0
	var last *Outcome
	for i := range outcomes {
		o := &outcomes[i]
		if o.Kind != EndPlain {
			continue
		}
		if last == nil || o.Claim != last.Claim || o.StatusAt != last.StatusAt {
			if last != nil {
				args[len(args)-1] = strconv.Itoa(size)
			}
			args = append(args, o.Claim, strconv.Itoa(o.StatusAt), "")
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
		if o := &outcomes[i]; o.Kind == EndPlain {
			args = append(args, o.ID, o.Payload)
		}
	}
	return args
}

// wantAt is where the number of wanted jobs is in the arguments, see turnHeader.
const wantAt = 4

// ClaimNothing has the call, when it is made again, claim no jobs. It still gives those
// that it has claimed already.
func (c *TurnCall) ClaimNothing() { c.args[wantAt] = "0" }

// Name returns the name of the call. It keeps its value when the call is forgotten.
func (c *TurnCall) Name() CallName { return CallName{c.args[0], c.args[1]} }

// Forget lets go of what the call holds, once it is answered.
func (c *TurnCall) Forget() { clear(c.args) }

// A Verdict is what turn.lua made of an outcome.
type Verdict byte

// The verdicts. All but Recorded changed nothing of the job.
const (
	Recorded Verdict = 'y'
	Lost     Verdict = 'l' // the job is another worker's, or was
	Gone     Verdict = 'g' // the job was removed
	Changed  Verdict = 'c' // the record of a plain success is not as it was
)

// A Claimed is a job to run.
type Claimed struct {
	ID, Record string
	NoRecord   bool // the record is yet to be read, or is gone
}

// A TurnReply is what a turn gives back.
type TurnReply struct {
	Verdicts    []Verdict // of each outcome
	Jobs        []Claimed
	Claim       string // names the claim of the jobs
	More        bool   // more jobs are waiting
	Unpublished string // why events could not be published; "" if they were
}

// Turn makes the call until its reply arrives. The notice is told why it is made again.
func (s *Store) Turn(ctx context.Context, c *TurnCall, notice func(error)) (TurnReply, error) {
	var reply TurnReply
	_, err := s.repeat(ctx, reading(s.eval(s.scripts.turn, s.turnKeys, c.args), func(message rueidis.RedisMessage) (err error) {
		reply, err = readTurn(c, message)
		return err
	}), retryPolicy{notice: notice, reached: c.Reached})
	if err != nil {
		return TurnReply{}, err
	}
	return reply, nil
}

// readTurn reads the reply of turn.lua.
func readTurn(c *TurnCall, message rueidis.RedisMessage) (TurnReply, error) {
	values, err := readTexts("turn script", message)
	if err != nil {
		return TurnReply{}, err
	}
	if len(values) < 3 || len(values)%2 != 1 || len(values[0]) != len(c.outcomes) {
		return TurnReply{}, badReply("turn script", "%d values for %d outcomes", len(values), len(c.outcomes))
	}
	reply := TurnReply{
		Verdicts: make([]Verdict, len(c.outcomes)), More: values[1] == "1", Claim: c.claim, Unpublished: values[2],
	}
	plain, other := 0, c.plain
	for i := range c.outcomes { // the plain ones came first
		at := &other
		if c.outcomes[i].Kind == EndPlain {
			at = &plain
		}
		v := Verdict(values[0][*at])
		switch {
		case v == Recorded, v == Lost, v == Gone, v == Changed && at == &plain:
			reply.Verdicts[i] = v
		default:
			return TurnReply{}, badReply("turn script", "verdict %q", v)
		}
		*at++
	}
	reply.Jobs = make([]Claimed, 0, (len(values)-3)/2)
	for i := 3; i < len(values); i += 2 {
		reply.Jobs = append(reply.Jobs, Claimed{values[i], values[i+1], c.OmitRecords})
	}
	return reply, nil
}

// ReadRecords reads the records of jobs that were claimed without. NoRecord stays set for
// those that are gone.
func (s *Store) ReadRecords(ctx context.Context, jobs []Claimed) error {
	ids := make([]string, len(jobs))
	for i := range jobs {
		ids[i] = jobs[i].ID
	}
	records, err := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Hmget().Key(s.keys.Name(Jobs)).Field(ids...).Build()
	}).ToMessage()
	if err != nil {
		return err
	}
	return readRecords(records, jobs)
}

// readRecords reads the reply of HMGET into jobs.
func readRecords(message rueidis.RedisMessage, jobs []Claimed) error {
	records, err := readArray("HMGET", message)
	if err != nil {
		return err
	}
	if len(records) != len(jobs) {
		return badReply("HMGET", "%d records for %d jobs", len(records), len(jobs))
	}
	for i := range records {
		if record, err := records[i].ToString(); err == nil {
			jobs[i].Record, jobs[i].NoRecord = record, false
		}
	}
	return nil
}

// msText returns a duration as scripts take it, in milliseconds.
func msText(d time.Duration) string {
	return strconv.FormatInt(wire.Millis(d), 10)
}
