package store

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// How a call to Redis is made so that a lost reply does no harm.
//
// A reply can be lost after its script ran. So each call of the save, turn, remove and
// retry scripts carries a name: the caller's token, a lane, and a sequence number. The
// script keeps the last number of each lane with its answer in the hash `calls`, and
// answers a repeated call from there (lua/call.lua). The other scripts that change
// something do no harm when repeated. So every call is safe to repeat until its reply
// arrives. A named request that was given up, and reaches Redis after its lane has gone
// on, is refused there.

// A Lane is a sequence of calls, one after the other.
type Lane struct {
	// Renewed is when a call began that renewed the lane's time in `calls`.
	Renewed time.Time

	field   string        // names the lane in the hash `calls`
	numbers *uint64       // the number of the last call; lanes may share it
	busy    chan struct{} // holds a value while a call is in flight
	args    []string      // of the last call, to be used again
}

// NewLane returns a caller's lane. Lanes that share a counter never use a number twice;
// nil gives the lane its own counter.
func NewLane(token, name string, numbers *uint64) Lane {
	if numbers == nil {
		numbers = new(uint64)
	}
	return Lane{field: token + ":" + name, numbers: numbers, busy: make(chan struct{}, 1)}
}

// A CallName names a call.
type CallName struct{ lane, seq string }

// NewToken returns a name for a caller: 72 random bits.
func NewToken() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// NewWorkerToken returns a name for a worker, a long one if it may run more than 16 jobs
// at once. Redis keeps a hash as one list, which it searches from its beginning, while
// there are at most some hundred fields and no value has more than 64 bytes. The worker's
// name is the value of each of its jobs in `owners`: a long name makes that a table at
// once.
func NewWorkerToken(concurrency int) string {
	token := NewToken()
	if concurrency > 16 {
		token += strings.Repeat("-", 64-len(token))
	}
	return token
}

// next starts the arguments of the lane's next call. They are the lane's until the call
// after that.
func (l *Lane) next() []string {
	*l.numbers++
	l.args = append(l.args[:0], l.field, strconv.FormatUint(*l.numbers, 10))
	return l.args
}

// Renewal is how old the time of a lane in use may get. A lane that is older than
// CallRetention is forgotten, and a call is repeated for half as long.
const Renewal = time.Minute

// CallRetention is how long the sweep remembers callers that have gone silent. A call is
// never repeated that long after its first try.
const CallRetention = time.Hour

// Serialized makes a call once the lane's earlier calls have ended.
func (l *Lane) Serialized(ctx context.Context, call func() error) error {
	select {
	case l.busy <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.busy }()
	return call()
}

// AttemptTimeout bounds the first try of a call: what a server that is frozen, or a
// connection that went dead without a word, costs at most. Each further try may take
// twice as long as the one before, up to longestAttempt, so that a large call over a slow
// link gets through in the end.
const (
	AttemptTimeout = 3 * time.Second
	longestAttempt = 48 * time.Second
)

// closedTries is how often a call is tried on a client that says it is closed. A client
// also says so of a connection that it gave up in a failover.
const closedTries = 6

// run calls a script until its reply arrives.
func (s *Store) run(ctx context.Context, script *Script, keys, args []string) (rueidis.RedisMessage, error) {
	return s.repeat(ctx, s.eval(script, keys, args), retryPolicy{})
}

// A request is one try of a call.
type request func(ctx context.Context) (rueidis.RedisMessage, error)

// eval returns a request that runs a script by its name, or by its text where Redis does
// not know it.
func (s *Store) eval(script *Script, keys, args []string) request {
	return func(ctx context.Context) (rueidis.RedisMessage, error) {
		return script.lua.Exec(ctx, s.client, keys, args).ToMessage()
	}
}

// reading has a request fail if its reply cannot be read. The request is then made again,
// under its name: such a reply does not tell what the script did.
func reading(r request, read func(rueidis.RedisMessage) error) request {
	return func(ctx context.Context) (rueidis.RedisMessage, error) {
		message, err := r(ctx)
		if err == nil || rueidis.IsRedisNil(err) {
			err = read(message)
		}
		return message, err
	}
}

// A retryPolicy is how a request is repeated.
type retryPolicy struct {
	notice  func(error)   // is told why; nil if nobody asks
	reached bool          // an earlier try may have reached Redis
	longest time.Duration // pause between two tries; 0 is longestPause
}

// repeat makes a request until its reply arrives. A transient error (a lost connection, a
// failover, a restart) goes to the notice, and the request is made again after a pause.
// When ctx ends, the error wraps ErrUncertain if a try may have reached Redis. Any other
// error is the server's refusal, and comes back at once.
func (s *Store) repeat(ctx context.Context, r request, policy retryPolicy) (rueidis.RedisMessage, error) {
	notice, reached := policy.notice, policy.reached
	wait := Pause{Longest: policy.longest}
	closed := 0
	for limit := AttemptTimeout; ; limit = min(2*limit, longestAttempt) {
		try, cancel := context.WithTimeout(ctx, limit)
		message, err := r(try)
		cancel()
		if err == nil || rueidis.IsRedisNil(err) {
			return message, nil
		}
		// If an earlier try may have reached Redis, a refusal does not tell what that try
		// did. With a notice func, the call goes on until it has an answer.
		if !transient(err) && (!reached || notice == nil) {
			return message, s.keys.explain(err)
		}
		reached = reached || !neverReached(err)
		if errors.Is(err, rueidis.ErrClosing) {
			if closed++; closed == closedTries {
				return message, fmt.Errorf("%w: %w", ErrUncertain, err)
			}
		}
		if ctx.Err() != nil {
			return message, gaveUp(ctx, err, reached)
		}
		if notice != nil {
			notice(err)
		}
		if !Sleep(ctx, wait.Next()) {
			return message, gaveUp(ctx, err, reached)
		}
	}
}

// ask calls a script that only reads, like run.
func (s *Store) ask(ctx context.Context, script *Script, keys, args []string) (rueidis.RedisMessage, error) {
	message, err := s.run(ctx, script, keys, args)
	if errors.Is(err, ErrUncertain) {
		if cause := context.Cause(ctx); cause != nil {
			return message, fmt.Errorf("redis did not answer: %w", cause)
		}
		return message, fmt.Errorf("redis did not answer: %w", rueidis.ErrClosing)
	}
	return message, err
}

// do runs a command that changes nothing, or nothing when repeated, until its reply
// arrives, ctx ends or, if ctx has no deadline, Settings.CallTimeout has passed. It takes
// a func because a command can be sent once.
//
// The command is pinned: the client does not use its memory again. If the connection
// breaks, the client makes a reading command again by itself, on another connection. Then
// that memory is free, while the first connection may still be about to write the command
// (rueidis 1.0.79).
func (s *Store) do(ctx context.Context, command func(rueidis.Builder) rueidis.Completed) rueidis.RedisResult {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.settings.CallTimeout)
		defer cancel()
	}
	var wait Pause
	closed := 0
	for limit := AttemptTimeout; ; limit = min(2*limit, longestAttempt) {
		try, cancel := context.WithTimeout(ctx, limit)
		result := s.client.Do(try, command(s.client.B()).Pin())
		cancel()
		err := result.Error()
		if errors.Is(err, rueidis.ErrClosing) {
			closed++
		}
		if err == nil || !transient(err) || closed == closedTries || ctx.Err() != nil || !Sleep(ctx, wait.Next()) {
			return result
		}
	}
}
