package store_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/store"
)

func TestMain(m *testing.M) { queuetest.Main(m) }

// storeOf returns another caller's store of the fixture's queue.
func storeOf(f *queuetest.Fixture, token string, interval time.Duration) *store.Store {
	return store.New(f.Client, store.NewKeys(f.KeyPrefix()), store.Settings{
		Token: token, StallInterval: interval, MaxStalls: 3, CallTimeout: 10 * time.Second,
	})
}

// sweep makes a stall check, and returns its reply.
func sweep(t *testing.T, s *store.Store, how, round string, ids ...string) store.SweepReply {
	t.Helper()
	reply, err := s.Sweep(queuetest.Bounded(t), store.Cursors{}, how, round, ids...)
	require.NoError(t, err)
	return reply
}

// A confirm acts in the round that doubted, once. A late one, or one that is repeated
// because its reply was lost, takes no job from a worker that has it since.
func TestConfirmActsInItsRoundOnly(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		a, b := storeOf(f, "a", 5*time.Second), storeOf(f, "b", 5*time.Second)
		f.Lose("x", "lost")
		require.Empty(t, sweep(t, a, store.SweepDoubt, "1").IDs)
		f.Must("DEL", "stallBlock")
		require.Equal(t, []string{"x"}, sweep(t, a, store.SweepDoubt, "2").IDs)

		require.Empty(t, sweep(t, b, store.SweepConfirm, "1", "x").IDs, "of the round before")
		require.Equal(t, []string{"x"}, sweep(t, a, store.SweepConfirm, "2", "x").IDs)
		require.Equal(t, "1", f.Text("HGET", "stalls", "x"))

		// Another worker claims it, and the confirm comes again.
		f.Must("LREM", "waiting", "0", "x")
		f.Lose("x", "healthy")
		require.Empty(t, sweep(t, a, store.SweepConfirm, "2", "x").IDs, "again")
		f.Must("DEL", "stallBlock")
		require.Empty(t, sweep(t, b, store.SweepDoubt, "3").IDs, "it is in this round's snapshot now")
		require.Empty(t, sweep(t, a, store.SweepConfirm, "2", "x").IDs, "late")
		f.Must("DEL", "stallBlock")
		require.Empty(t, sweep(t, a, store.SweepConfirm, "2", "x").IDs, "when no round is on")
		require.Equal(t, []string{"x"}, f.Active())
		require.Equal(t, "healthy/7", f.Text("HGET", "owners", "x"))
		require.Equal(t, "1", f.Text("HGET", "stalls", "x"))
		f.Must("DEL", "owners")
	})
}

// A worker that phones in between doubt and confirm keeps its job.
func TestConfirmSparesWhoPhonedIn(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		a := storeOf(f, "a", 5*time.Second)
		f.Lose("x", "slow")
		f.Lose("y", "lost")
		sweep(t, a, store.SweepDoubt, "1")
		f.Must("DEL", "stallBlock")
		require.ElementsMatch(t, []string{"x", "y"}, sweep(t, a, store.SweepDoubt, "2").IDs)
		lost, err := a.Heartbeat(queuetest.Bounded(t), "slow", 5*time.Second, nil, []string{"x", "7", "y", "7"})
		require.NoError(t, err)
		require.Equal(t, []store.JobClaim{{ID: "y", Claim: "7"}}, lost, "another's")
		require.Equal(t, []string{"y"}, sweep(t, a, store.SweepConfirm, "2", "x", "y").IDs)
		require.Equal(t, []string{"x"}, f.Active())
		f.Must("DEL", "owners")
	})
}

// The gate is never further ahead than its own interval, as it would be when the server's
// clock is set back. A gate of Node's does not say its interval, and is left.
func TestGateAhead(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		a := storeOf(f, "a", 5*time.Minute)
		hour := strconv.Itoa(int(time.Hour / time.Millisecond))
		near := func(reply store.SweepReply, want time.Duration) {
			t.Helper()
			require.False(t, reply.Swept)
			require.InDelta(t, want.Minutes(), reply.Next.Minutes(), 1)
			require.InDelta(t, want.Minutes(), (time.Duration(f.Number("PTTL", "stallBlock")) * time.Millisecond).Minutes(), 1)
		}
		f.Must("SET", "stallBlock", "name 120000", "PX", hour)
		near(sweep(t, a, store.SweepDoubt, "1"), 2*time.Minute)
		f.Must("SET", "stallBlock", "name 1200000", "PX", "600000")
		near(sweep(t, a, store.SweepDoubt, "1"), 10*time.Minute)
		f.Must("SET", "stallBlock", "1", "PX", "1800000")
		near(sweep(t, a, store.SweepDoubt, "1"), 30*time.Minute)
		f.Must("SET", "stallBlock", "1")
		near(sweep(t, a, store.SweepDoubt, "1"), 5*time.Minute)
		f.Must("DEL", "stallBlock")
		f.Must("RPUSH", "stallBlock", "of another type")
		near(sweep(t, a, store.SweepDoubt, "1"), 5*time.Minute)
		f.Must("DEL", "stallBlock")
		require.True(t, sweep(t, a, store.SweepDoubt, "1").Swept)
	})
}

// A worker owns what a call has claimed whose reply it has not heard. It phones in for that
// by the call's name, and gets it when the call is made again.
func TestUnheardClaim(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		a := storeOf(f, "a", 5*time.Second)
		ids := []string{"plain", "with spaces: 3:abc", "12", "ümläut", "1:2 3:4", "\n"}
		for _, id := range ids {
			f.Save(id, func(j *beequeue.Job) { j.SetID(id) })
		}
		lane := store.NewLane("worker", "turn0", nil)
		call := a.PrepareTurn(&lane, store.Turn{Token: "worker", Lease: -1, Want: 10})
		reply, err := a.Turn(queuetest.Bounded(t), &call, nil)
		require.NoError(t, err)
		claimed := func(reply store.TurnReply) (ids []string) {
			for _, job := range reply.Jobs {
				ids = append(ids, job.ID)
			}
			return ids
		}
		require.Equal(t, ids, claimed(reply))

		sweep(t, a, store.SweepDoubt, "1")
		require.ElementsMatch(t, ids, f.List("SMEMBERS", "stalling"))
		other := store.NewLane("worker", "turn1", nil)
		unknown := a.PrepareTurn(&other, store.Turn{Token: "worker", Lease: -1})
		_, err = a.Heartbeat(queuetest.Bounded(t), "worker", 5*time.Second, []store.CallName{unknown.Name()}, nil)
		require.NoError(t, err)
		require.Len(t, f.List("SMEMBERS", "stalling"), len(ids), "a call that never arrived")
		f.Must("LREM", "active", "0", "12") // somebody took it back
		f.Must("HDEL", "owners", "12")
		lost, err := a.Heartbeat(queuetest.Bounded(t), "worker", 5*time.Second, []store.CallName{unknown.Name(), call.Name()}, nil)
		require.NoError(t, err)
		require.Empty(t, lost)
		require.Equal(t, []string{"12"}, f.List("SMEMBERS", "stalling"))

		f.Must("DEL", "stallBlock")
		sweep(t, a, store.SweepDoubt, "2")
		reply, err = a.Turn(queuetest.Bounded(t), &call, nil)
		require.NoError(t, err)
		require.Equal(t, []string{"plain", "with spaces: 3:abc", "ümläut", "1:2 3:4", "\n"}, claimed(reply))
		require.Empty(t, f.List("SMEMBERS", "stalling"), "a repeated call phones in")
		_, err = f.Destroy(queuetest.Bounded(t))
		require.NoError(t, err)
	})
}

// A repeated turn does not give a job that a Node process has put back into waiting
// meanwhile, whose owner is left as it was.
func TestRepeatedTurnAfterNodeTookBack(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		a := storeOf(f, "a", 5*time.Second)
		for range 5 {
			f.Save(1)
		}
		lane := store.NewLane("worker", "turn0", nil)
		call := a.PrepareTurn(&lane, store.Turn{Token: "worker", Lease: -1, Want: 5})
		reply, err := a.Turn(queuetest.Bounded(t), &call, nil)
		require.NoError(t, err)
		require.Len(t, reply.Jobs, 5)
		for _, i := range []int{0, 2, 4} {
			f.Must("LREM", "active", "0", reply.Jobs[i].ID)
			f.Must("RPUSH", "waiting", reply.Jobs[i].ID)
		}
		again, err := a.Turn(queuetest.Bounded(t), &call, nil)
		require.NoError(t, err)
		require.Equal(t, []store.Claimed{reply.Jobs[1], reply.Jobs[3]}, again.Jobs)
		_, err = f.Destroy(queuetest.Bounded(t))
		require.NoError(t, err)
	})
}

// A confirm that comes when the gate has opened already still acts, if no other check has
// been made: a slow link or a long check must not keep jobs from being taken back.
func TestConfirmAfterTheGate(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		a := storeOf(f, "a", 100*time.Millisecond)
		f.Lose("x", "lost")
		sweep(t, a, store.SweepDoubt, "1")
		f.Must("DEL", "stallBlock")
		round := store.NewRound()
		require.Equal(t, []string{"x"}, sweep(t, a, store.SweepDoubt, round).IDs)
		f.Must("DEL", "stallBlock")
		require.Equal(t, []string{"x"}, sweep(t, a, store.SweepConfirm, round, "x").IDs)
		require.Equal(t, []string{"x"}, f.Waiting())
	})
}
