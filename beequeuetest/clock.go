package beequeuetest

import (
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Now returns the time of the kit's clock, in whole milliseconds, rounded up.
// Code that computes times for Job.DelayUntil should have it as its clock.
func (k *Kit) Now() time.Time {
	k.clock.mu.Lock()
	defer k.clock.mu.Unlock()
	return k.clock.now()
}

// Advance moves the kit's clock forward, and with it everything that expires.
// Jobs whose time has come then are run by the next Run, or at once by a Process
// that is under way. It fails the test if d is negative.
func (k *Kit) Advance(d time.Duration) {
	k.tb.Helper()
	if d < 0 {
		k.tb.Errorf("beequeuetest: advance by %v: the clock does not go back", d)
		return
	}
	k.clock.advance(d)
	// Workers sleep until the next delayed job is due, by the process's clock.
	// What tells them of an earlier one wakes them.
	for _, channel := range k.redis.PubSubChannels("*:earlierDelayed") {
		k.redis.Publish(channel, "0")
	}
}

// A clock is the process's and what it was advanced by.
type clock struct {
	redis *miniredis.Miniredis

	mu    sync.Mutex
	ahead time.Duration
	holds int       // who wants it to stand still
	held  time.Time // where it stands, if somebody does
}

// now gives the time, rounded up as the due times of jobs are: so a job is due
// when the clock was advanced by its delay, not up to a millisecond later. The
// caller has the lock.
func (c *clock) now() time.Time {
	if c.holds > 0 {
		return c.held
	}
	exact := time.Now().Add(c.ahead).Round(0)
	now := exact.Truncate(time.Millisecond)
	if now.Before(exact) {
		now = now.Add(time.Millisecond)
	}
	return now
}

// tick gives the server the time. TTLs follow (miniredis's ClockTTL).
func (c *clock) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.redis.SetTime(c.now())
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	c.held = c.held.Add(d)
	c.redis.SetTime(c.now())
}

// hold stops the clock until release; only advance moves it meanwhile.
func (c *clock) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds == 0 {
		c.held = c.now()
	}
	c.holds++
}

func (c *clock) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds--
}

// clockedConn is a client's connection. The server's clock stands where it was
// set last, so it is set before each request.
type clockedConn struct {
	net.Conn
	clock *clock
}

func (c clockedConn) Write(b []byte) (int, error) {
	c.clock.tick()
	return c.Conn.Write(b)
}
