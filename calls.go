package beequeue

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// How a call to Redis is made so that a lost reply does no harm.
//
// A reply can be lost after its script ran. So each call of a script that
// changes something carries the caller's token, a lane, and a sequence number;
// the script keeps the last number of each lane with its answer in the hash
// `calls`, and answers a repeated call from there (lua/call.lua). That makes
// every call safe to repeat until its reply arrives. A request that was given
// up, and reaches Redis after its lane has gone on, is refused there.

// A lane is one line of calls, of which at most one is under way.
type lane struct {
	field   string        // names the lane in the hash `calls`
	numbers *uint64       // the number of the last call; lanes may share it
	busy    chan struct{} // holds a value while a call is under way
	args    []string      // of the last call, to be used again
	renewed time.Time     // when a call began that renewed the lane's time in `calls`
}

func newLane(token, name string) lane {
	return lane{field: token + ":" + name, numbers: new(uint64), busy: make(chan struct{}, 1)}
}

// newToken names a caller: 72 random bits.
func newToken() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// newWorkerToken names a worker, for more than a few jobs by a long name: Redis
// keeps a hash as one list, which it searches from its beginning, while there are at
// most some hundred fields and no value has more than 64 bytes. The worker's name is the
// value of each of its jobs in `owners`; a long one makes that a table at once.
func newWorkerToken(concurrency int) string {
	token := newToken()
	if concurrency > 16 {
		token += strings.Repeat("-", 64-len(token))
	}
	return token
}

// next starts the arguments of the lane's next call. They are the lane's until
// the call after that.
func (l *lane) next() []string {
	*l.numbers++
	l.args = append(l.args[:0], l.field, strconv.FormatUint(*l.numbers, 10))
	return l.args
}

// renewal is how old the time of a lane in use may get. A lane that is older than
// callRetention is forgotten, and a call is repeated for half as long.
const renewal = time.Minute

// serialized makes a call when those before it are done.
func (l *lane) serialized(ctx context.Context, call func() error) error {
	select {
	case l.busy <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.busy }()
	return call()
}

// attemptTimeout bounds the first try of a call. A server that is frozen, or a
// connection that went dead without a word, costs no more than this. Each further
// try may take twice as long as the one before, up to longestAttempt: a large call
// over a slow link gets through in the end.
const (
	attemptTimeout = 3 * time.Second
	longestAttempt = 48 * time.Second
)

// closedTries is how often a call is tried on a client that says it is closed. A
// client says so, too, of a connection that it gave up in a failover.
const closedTries = 6

// run calls a script until its reply arrives.
func (q *Queue) run(ctx context.Context, s *rueidis.Lua, keys, args []string) (rueidis.RedisMessage, error) {
	return q.repeat(ctx, q.plainly(s, keys, args), manner{})
}

// A request is one try of a call.
type request func(ctx context.Context) (rueidis.RedisMessage, error)

// plainly runs a script by its name, or by its text where Redis does not know it.
func (q *Queue) plainly(s *rueidis.Lua, keys, args []string) request {
	return func(ctx context.Context) (rueidis.RedisMessage, error) {
		return s.Exec(ctx, q.client, keys, args).ToMessage()
	}
}

// A manner is how a request is repeated.
type manner struct {
	notice  func(error)   // is told why
	reached bool          // an earlier try may have reached Redis
	longest time.Duration // pause between two tries; 0 is longestPause
}

// repeat makes a request until its reply arrives. Errors that pass by themselves (lost
// connections, a failover, a restart) are told to the notice, if there is one, and the
// request is made again after a pause, until ctx ends; then the error wraps ErrUncertain
// if a try may have reached Redis. Any other error is the server's refusal, and comes
// back at once.
func (q *Queue) repeat(ctx context.Context, r request, m manner) (rueidis.RedisMessage, error) {
	notice, reached := m.notice, m.reached
	wait := pause{longest: m.longest}
	closed := 0
	for limit := attemptTimeout; ; limit = min(2*limit, longestAttempt) {
		try, cancel := context.WithTimeout(ctx, limit)
		message, err := r(try)
		cancel()
		if err == nil || rueidis.IsRedisNil(err) {
			return message, nil
		}
		// The refusal of a repeated call says nothing of its first try: whoever
		// takes notice waits for the answer.
		if !passing(err) && (!reached || notice == nil) {
			return message, q.keys.explain(err)
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
		if !sleep(ctx, wait.next()) {
			return message, gaveUp(ctx, err, reached)
		}
	}
}

// ask calls a script that only reads, like run.
func (q *Queue) ask(ctx context.Context, s *rueidis.Lua, keys, args []string) (rueidis.RedisMessage, error) {
	message, err := q.run(ctx, s, keys, args)
	if errors.Is(err, ErrUncertain) {
		if cause := context.Cause(ctx); cause != nil {
			return message, fmt.Errorf("redis did not answer: %w", cause)
		}
		return message, fmt.Errorf("redis did not answer: %w", rueidis.ErrClosing)
	}
	return message, err
}

// do runs one command that changes nothing, or nothing when repeated, until its
// reply arrives, ctx ends or, if that has no deadline, Config.CallTimeout has passed.
// It takes a func because a command can be sent once.
//
// The command is pinned: the client does not use its memory again. If the connection
// breaks, the client makes a reading command again by itself, on another, and then that
// memory is free, while the first connection may still be about to write the command
// (rueidis 1.0.79).
func (q *Queue) do(ctx context.Context, command func(rueidis.Builder) rueidis.Completed) rueidis.RedisResult {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	var wait pause
	closed := 0
	for limit := attemptTimeout; ; limit = min(2*limit, longestAttempt) {
		try, cancel := context.WithTimeout(ctx, limit)
		result := q.client.Do(try, command(q.client.B()).Pin())
		cancel()
		err := result.Error()
		if errors.Is(err, rueidis.ErrClosing) {
			closed++
		}
		if err == nil || !passing(err) || closed == closedTries || ctx.Err() != nil || !sleep(ctx, wait.next()) {
			return result
		}
	}
}

// gaveUp is the error of a call that got no reply before ctx ended.
func gaveUp(ctx context.Context, last error, reached bool) error {
	cause := context.Cause(ctx)
	if cause == nil { // the client is closed
		cause, last = last, errors.New("given up")
	} else if errors.Is(last, cause) || errors.Is(last, context.DeadlineExceeded) {
		last = errors.New("no reply")
	}
	if reached {
		return fmt.Errorf("%w: %w (%w)", ErrUncertain, cause, last)
	}
	return fmt.Errorf("redis was not reached: %w (%w)", cause, last)
}

// passing tells errors that go away by themselves from refusals.
func passing(err error) bool {
	if rueidis.IsRedisNil(err) {
		return false // an answer; IsRedisErr does not count it
	}
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return true
	}
	switch refusal(reply) {
	case "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED", "NOREPLICAS":
		return true
	}
	return false
}

// refusal is the first word of what a server says, which names the kind of it. Before
// Redis 7, what a command in a script was refused with stands behind "ERR Error running
// script (call to f_...): @user_script:1: @user_script: 1: -".
func refusal(reply *rueidis.RedisError) string {
	text := reply.Error()
	if strings.HasPrefix(text, "Error running script") { // the client leaves out the ERR
		if _, inner, found := strings.Cut(text, ": -"); found {
			text = inner
		}
	}
	word, _, _ := strings.Cut(text, " ")
	return word
}

// neverReached reports that Redis certainly did not run the command.
func neverReached(err error) bool {
	if _, ok := rueidis.IsRedisErr(err); ok {
		return true // a refusal
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// sleep waits; it reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// dedicate gives a connection for one user alone, or nil if ctx ended first. The
// client connects without regard to any context, and to a server that is frozen
// until its dial timeout has passed: then the connection is closed as it comes.
func dedicate(ctx context.Context, client rueidis.Client) (rueidis.DedicatedClient, func()) {
	type dedicated struct {
		conn    rueidis.DedicatedClient
		release func()
	}
	made := make(chan dedicated)
	go func() {
		conn, release := client.Dedicate()
		select {
		case made <- dedicated{conn, release}:
		case <-ctx.Done():
			conn.Close()
			release()
		}
	}()
	select {
	case d := <-made:
		return d.conn, d.release
	case <-ctx.Done():
		return nil, nil
	}
}
