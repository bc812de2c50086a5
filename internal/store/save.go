package store

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// A SaveItem is one job of a save, as save.lua takes it.
type SaveItem struct {
	ID     string // "" for the next automatic one
	Record string
	Due    string // Unix ms; "" for now
}

// A SaveCall is one call of save.lua, which may be made more than once.
type SaveCall struct {
	args []string // the lane's
	jobs int
	// Reached says that the call was made before, and may have reached Redis.
	Reached bool
}

// PrepareSave returns the lane's next call, which saves n items, and renews the lane's
// time if it is to. If mostWaiting is positive, no more jobs may be waiting after it. Jobs
// that get automatic ids and are not delayed need no more than their records.
func PrepareSave(l *Lane, n int, item func(i int) *SaveItem, renew bool, mostWaiting int) SaveCall {
	plain, renewal, most := "1", "", ""
	for i := 0; i < n && plain != ""; i++ {
		if it := item(i); it.ID != "" || it.Due != "" {
			plain = ""
		}
	}
	if renew {
		renewal = "1"
	}
	if mostWaiting > 0 {
		most = strconv.Itoa(mostWaiting)
	}
	args := append(l.next(), renewal, plain, most)
	for i := range n {
		it := item(i)
		if plain != "" {
			args = append(args, it.Record)
		} else {
			args = append(args, it.ID, it.Record, it.Due)
		}
	}
	l.args = args
	return SaveCall{args: args, jobs: n}
}

// Forget lets go of what the call holds, once it is answered.
func (c *SaveCall) Forget() { clear(c.args) }

// A SaveReply is what became of one job of a save.
type SaveReply struct {
	ID        string // the automatic id, or "" if the job was saved under its own
	Duplicate bool   // it was not saved: the id is taken
	Full      bool   // it was not saved: as many jobs as may be are waiting
}

// Save makes the call until its reply arrives. With Settings.SaveReplicas it is repeated
// until that many replicas have the jobs, too. The notice is told why a call is made again.
func (s *Store) Save(ctx context.Context, c *SaveCall, notice func(error)) ([]SaveReply, error) {
	r := s.eval(s.scripts.save, s.saveKeys, c.args)
	if s.settings.SaveReplicas > 0 {
		r = s.replicated(s.scripts.save, s.saveKeys, c.args)
	}
	var replies []SaveReply
	_, err := s.repeat(ctx, reading(r, func(message rueidis.RedisMessage) (err error) {
		replies, err = readSave(message, c.jobs)
		return err
	}), retryPolicy{notice: notice, reached: c.Reached})
	return replies, err
}

// readSave reads the reply of save.lua for n jobs.
func readSave(message rueidis.RedisMessage, n int) ([]SaveReply, error) {
	answer, err := readText("save script", message)
	if err != nil {
		return nil, err
	}
	replies := make([]SaveReply, n)
	if first, ok := strings.CutPrefix(answer, "="); ok {
		id, err := strconv.ParseInt(first, 10, 64)
		if err != nil || id > math.MaxInt64-int64(n) {
			return nil, badReply("save script", "%s", wire.Excerpt([]byte(answer)))
		}
		for i := range replies {
			replies[i].ID = strconv.FormatInt(id+int64(i), 10)
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
			replies[i].Duplicate = true
		case "!":
			replies[i].Full = true
		default:
			if _, err := strconv.ParseInt(word, 10, 64); err != nil {
				return nil, badReply("save script", "%s", wire.Excerpt([]byte(word)))
			}
			replies[i].ID = word
		}
	}
	return replies, nil
}
