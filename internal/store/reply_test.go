package store

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// A reply in a test is written a value a line: "$text", ":7", "_" for nil, "-ERR why",
// and "*2" for an array of the two values that follow.

// redisMessage makes what a client would give for a reply. Lines that are missing are nil.
func redisMessage(t *testing.T, reply string) rueidis.RedisMessage {
	t.Helper()
	lines := strings.Split(reply, "\n")
	buffer := append(make([]byte, 7), encodeReply(&lines, 0)...)
	var m rueidis.RedisMessage
	require.NoError(t, m.CacheUnmarshalView(buffer))
	return m
}

// encodeReply writes a value as rueidis keeps it in its cache, the one way in which
// messages can be made outside of it: a type, a number or length, and what it has.
func encodeReply(lines *[]string, depth int) []byte {
	line := "_"
	if len(*lines) > 0 && (*lines)[0] != "" {
		line, *lines = (*lines)[0], (*lines)[1:]
	}
	kind, rest := line[0], line[1:]
	number, _ := strconv.ParseInt(rest, 10, 64)
	switch kind {
	case '$', '-':
		return append(binary.BigEndian.AppendUint64([]byte{kind}, uint64(len(rest))), rest...)
	case ':':
		return binary.BigEndian.AppendUint64([]byte{kind}, uint64(number)) //nolint:gosec // as it is stored
	case '*':
		if depth > 3 {
			number = 0
		}
		number = min(max(0, number), int64(len(*lines)))
		array := binary.BigEndian.AppendUint64([]byte{kind}, uint64(number)) //nolint:gosec // not negative
		for range number {
			array = append(array, encodeReply(lines, depth+1)...)
		}
		return array
	}
	return binary.BigEndian.AppendUint64([]byte{'_'}, 0)
}

// reply writes an array of strings.
func reply(texts ...string) string {
	return "*" + strconv.Itoa(len(texts)) + "\n$" + strings.Join(texts, "\n$")
}

// refused checks the error for a reply that was not taken, and reports whether it was not.
func refused(t *testing.T, err error, to string) bool {
	t.Helper()
	if err == nil {
		return false
	}
	if rueidis.IsRedisNil(err) || !strings.HasPrefix(err.Error(), to) || len(err.Error()) > 500 {
		t.Fatalf("not a useful error: %v", err)
	}
	return true
}

func FuzzReadSave(f *testing.F) {
	for _, text := range []string{"=1", "=9223372036854775807", "= 1", "=-3", "=", "+ - ! 7", "7 8", "+", "", "x y", "99999999999999999999"} {
		f.Add("$"+text, 2)
	}
	f.Add("_", 1)
	f.Add(":1", 1)
	f.Add("*1\n$=1", 1)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = min(max(1, n), 1000)
		replies, err := readSave(redisMessage(t, text), n)
		if refused(t, err, "save script") {
			return
		}
		if len(replies) != n {
			t.Fatalf("%d replies for %d jobs", len(replies), n)
		}
		for _, r := range replies {
			_, notNumber := strconv.ParseInt(r.ID, 10, 64)
			if r.Duplicate && r.Full || r.ID != "" && (r.Duplicate || r.Full || notNumber != nil) {
				t.Fatalf("took %q for %+v", text, r)
			}
		}
	})
}

func FuzzReadTurn(f *testing.F) {
	for _, texts := range [][]string{
		{"yyy", "0", ""},
		{"ylg", "1", "NOPERM"},
		{"cyy", "1", "", "id", "record"},
		{"yyc", "0", ""},
		{"yy", "0", ""},
		{"yyy", "0", "", "id"},
		{"yyy"},
		{},
		{"???", "0", ""},
		{"", "2", "", "id", "", "id", ""},
	} {
		f.Add(reply(texts...), "pps", false)
	}
	f.Add("*3\n:1\n:0\n_", "p", true)
	f.Add("_", "", true)
	f.Add("-ERR no", "s", true)
	f.Fuzz(func(t *testing.T, text, outcomes string, omitRecords bool) {
		c := TurnCall{claim: "1", OmitRecords: omitRecords}
		for _, kind := range outcomes {
			o := Outcome{Kind: EndFailed}
			if kind == 'p' {
				o.Kind = EndPlain
				c.plain++
			}
			c.outcomes = append(c.outcomes, o)
		}
		r, err := readTurn(&c, redisMessage(t, text))
		if refused(t, err, "turn script") {
			return
		}
		if len(r.Verdicts) != len(c.outcomes) || r.Claim != c.claim {
			t.Fatalf("took %q for %+v", text, r)
		}
		for i, v := range r.Verdicts {
			if !strings.ContainsRune("ylgc", rune(v)) || v == Changed && c.outcomes[i].Kind != EndPlain {
				t.Fatalf("took %q for verdict %q of outcome %d", text, v, i)
			}
		}
		for _, job := range r.Jobs {
			if job.NoRecord != omitRecords {
				t.Fatalf("took %q for %+v", text, job)
			}
		}
	})
}

func FuzzReadSweep(f *testing.F) {
	for _, text := range []string{
		"*6\n$1\n:1000\n$0\n$0\n$0\n:0", "*9\n$1\n:1000\n$0\n$17\n$0\n:1\n$a\n$b\n$record", "*6\n$0\n:9223372036854775807\n$0\n$0\n$0\n:0",
		"*6\n$1\n:-1\n$0\n$0\n$0\n:-1", "*8\n$1\n:1\n$0\n$0\n$0\n:3\n$a\n$b", "*7\n$1\n:1\n$0\n$0\n$0\n:0\n$a", "*5\n$1\n:1\n$0\n$0\n$0", "_", "*0",
		"*6\n$1\n$x\n$0\n$0\n$0\n:0", "*6\n$1\n:1\n:0\n$0\n$0\n:0", "*7\n$1\n:1\n$0\n$0\n$0\n:9223372036854775807\n$a",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := readSweep(redisMessage(t, text))
		if refused(t, err, "sweep script") {
			return
		}
		if r.Next < 0 || r.Next > CallRetention {
			t.Fatalf("took %q for a wait of %v", text, r.Next)
		}
		if len(r.IDs)+2*len(r.Failing)+6 > strings.Count(text, "\n") {
			t.Fatalf("took %q for %d and %d jobs", text, len(r.IDs), len(r.Failing))
		}
	})
}

// FuzzReadReplies has the replies of all other scripts and commands, each of which
// is read as each.
func FuzzReadReplies(f *testing.F) {
	for _, text := range []string{
		"*4\n:5\n:1000\n:1753700000000\n:5", "*4\n:0\n:-1\n:1\n:0", "*4\n:0\n:0\n:1\n:-1", "*3\n:-1\n:-9223372036854775808\n:9223372036854775807", "*3\n$1\n$2\n$x",
		"$retried", "$not found", "$not failed", "$", "_", ":0", "-ERR wrong", "*0", "*3\n${}\n$succeeded\n$", "*3\n${}\n$active\n$", "*3\n_\n_\n_",
		"*2\n$1 0 0 0 0 1\n$", "*2\n$0 0 0 0 0 0\n$removed", "*2\n$0 9999999999 0 0 0 1\n$waiting", "*2\n$-1 0 0 0 0 1\n$", "*2\n$1 1 1 1\n$", "*2\n$a b c d e f\n$x",
		"*6\n:1\n:2\n:3\n:4\n:5\n$7", "*6\n:1\n:2\n:3\n:4\n:5\n_", "*2\n$0\n*2\n$a\n$1", "*2\n$17\n*1\n$a", "*2\n$0\n$a", "*2\n:0\n*0", "*2\n$record\n_",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := redisMessage(t, text)
		if r, err := readRaise(m); !refused(t, err, "raise script") {
			if r.Raised < 0 || r.Wait < -time.Millisecond || r.Wait > CallRetention || r.Now.UnixMilli() < 0 {
				t.Fatalf("took %q for %+v", text, r)
			}
		}
		if answer, err := readRetry(m); !refused(t, err, "retry script") && answer == nil && text[:8] != "$retried" {
			t.Fatalf("took %q for a retry", text)
		}
		if found, err := readLookup(m); !errors.Is(err, ErrNotFound) && !refused(t, err, "lookup script") {
			if !slices.Contains([]string{"", "succeeded", "failed"}, found.Ended) {
				t.Fatalf("took %q for %+v", text, found)
			}
		}
		if views, err := readViews(m, 1); !refused(t, err, "audit script") {
			if len(views) != 1 || len(views[0].States) > 5*mostCopies {
				t.Fatalf("took %q for %+v", text, views)
			}
		}
		_, err := readCounts(m)
		refused(t, err, "counts script")
		if lost, err := readHeartbeat(m); !refused(t, err, "heartbeat script") && 2*len(lost) > strings.Count(text, "\n") {
			t.Fatalf("took %q for %d jobs", text, len(lost))
		}
		for width := 1; width <= 2; width++ {
			if _, ids, err := readPage(m, width); !refused(t, err, "SCAN") && len(ids) > strings.Count(text, "\n") {
				t.Fatalf("took %q for %d ids", text, len(ids))
			}
		}
		jobs := []Claimed{{ID: "1", NoRecord: true}, {ID: "2", NoRecord: true}}
		if refused(t, readRecords(m, jobs), "HMGET") && (!jobs[0].NoRecord || !jobs[1].NoRecord) {
			t.Fatalf("read records of %q, and refused it", text)
		}
	})
}
