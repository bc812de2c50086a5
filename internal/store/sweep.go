package store

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// Heartbeat phones in for all jobs that a worker may own, and renews its lease. The calls
// are those whose replies the worker has not heard, and the jobs are given as id, claim, id,
// claim. It returns those that are no longer the worker's. While Redis does not answer, it
// is tried four times in a Probation.
func (s *Store) Heartbeat(ctx context.Context, token string, lease time.Duration, unheard []CallName, jobs []string) ([]JobClaim, error) {
	args := append(make([]string, 0, 3+2*len(unheard)+len(jobs)), token, msText(lease), strconv.Itoa(len(unheard)))
	for _, c := range unheard {
		args = append(args, c.lane, c.seq)
	}
	args = append(args, jobs...)
	r := s.eval(s.scripts.heartbeat, s.heartbeatKeys, args)
	message, err := s.repeat(ctx, r, retryPolicy{longest: s.Probation() / 4})
	if err != nil {
		return nil, err
	}
	return readHeartbeat(message)
}

// A JobClaim is a job under one claim. Under another claim it is another run.
type JobClaim struct{ ID, Claim string }

// readHeartbeat reads the reply of heartbeat.lua.
func readHeartbeat(message rueidis.RedisMessage) ([]JobClaim, error) {
	values, err := readTexts("heartbeat script", message)
	if err != nil {
		return nil, err
	}
	if len(values)%2 != 0 {
		return nil, badReply("heartbeat script", "%d values", len(values))
	}
	var lost []JobClaim
	for pair := range slices.Chunk(values, 2) {
		lost = append(lost, JobClaim{pair[0], pair[1]})
	}
	return lost, nil
}

// Probation is the time that a silent worker is given to phone in before its jobs are
// taken back: half a stall interval, a second at most.
func (s *Store) Probation() time.Duration { return min(s.settings.StallInterval/2, time.Second) }

// SweepClaim is the claim under which the sweep gives its caller jobs to fail.
const SweepClaim = "sweep"

// How sweep.lua looks for jobs of lost workers.
const (
	SweepTake    = "take"    // and takes them back
	SweepDoubt   = "doubt"   // and tells of them
	SweepConfirm = "confirm" // among those it has told of, and takes them back
)

// Cursors are where the sweep's clean-up of the hashes left off. Their zero value is the
// beginning.
type Cursors struct{ calls, owners, stalls string }

// A SweepReply is what a stall check found.
type SweepReply struct {
	Swept   bool          // false: somebody else checked lately
	Next    time.Duration // until the next check is due
	IDs     []string      // taken back to waiting, or doubted
	Failing []Claimed     // taken back too often: the caller has to fail them
	Cursors Cursors       // for the next check
}

// NewRound returns a name for a stall check, unlike any job's id.
func NewRound() string { return "\x00round:" + NewToken() }

// GateLeft returns how long it is until the next stall check may be made; zero if it may be
// made now.
func (s *Store) GateLeft(ctx context.Context) (time.Duration, error) {
	left, err := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Pttl().Key(s.keys.Name(StallBlock)).Build()
	}).AsInt64()
	return milliseconds(max(0, left)), err
}

// Sweep makes a stall check. The round names it, for those that confirm; the ids are those
// to confirm.
func (s *Store) Sweep(ctx context.Context, cursors Cursors, how, round string, ids ...string) (SweepReply, error) {
	begin := func(cursor string) string {
		if cursor == "" {
			return "0"
		}
		return cursor
	}
	args := append([]string{
		msText(s.settings.StallInterval), strconv.Itoa(s.settings.MaxStalls), s.settings.Token, SweepClaim,
		begin(cursors.calls), begin(cursors.owners), begin(cursors.stalls), msText(CallRetention), how, round,
	}, ids...)
	message, err := s.run(ctx, s.scripts.sweep, s.sweepKeys, args)
	if err != nil {
		return SweepReply{}, err
	}
	return readSweep(message)
}

// readSweep reads the reply of sweep.lua.
func readSweep(message rueidis.RedisMessage) (SweepReply, error) {
	const nextAt, countAt, first = 1, 5, 6
	values, err := readArray("sweep script", message)
	if err != nil {
		return SweepReply{}, err
	}
	if len(values) < first {
		return SweepReply{}, badReply("sweep script", "%d values", len(values))
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
			return SweepReply{}, badReply("sweep script", "value %d", i+1)
		}
	}
	rest := words[first:]
	if count < 0 || count > int64(len(rest)) || (int64(len(rest))-count)%2 != 0 {
		return SweepReply{}, badReply("sweep script", "%d ids of %d values", count, len(values))
	}
	reply := SweepReply{
		Swept:   words[0] == "1",
		Next:    milliseconds(max(0, next)),
		Cursors: Cursors{words[2], words[3], words[4]},
		IDs:     rest[:count],
	}
	for pair := range slices.Chunk(rest[count:], 2) {
		reply.Failing = append(reply.Failing, Claimed{ID: pair[0], Record: pair[1]})
	}
	return reply, nil
}
