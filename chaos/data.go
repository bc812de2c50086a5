package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gobeequeue/beequeue/chaos/internal/actor"
	"github.com/gobeequeue/beequeue/internal/store"
)

// Data that nobody should have written.
var dataScenarios = []scenario{
	{
		name:  "malformed-records",
		fault: "records that are no job, jobs without a record, odd ids, payloads of 10 MB",
		bound: "the bad job is in failed, its bytes unchanged, with the reason; the others complete",
		needs: need{beeQueueFormat: true},
		run:   malformedRecords,
	},
	{
		name:  "junk-messages",
		fault: "junk on both channels",
		bound: "nothing crashes, blocks or loops; all jobs complete",
		needs: need{beeQueueFormat: true},
		run:   junkMessages,
	},
	{
		name:  "wrong-types",
		fault: "each key of a wrong type for 2 s",
		bound: "the same, as soon as it is put right",
		needs: need{beeQueueFormat: true},
		run:   wrongTypes,
	},
}

// record is a job as Bee-Queue stores it.
func record(n int, data string) string {
	return fmt.Sprintf(`{"data":{"n":%d%s},"options":{"timestamp":1,"stacktraces":[],"retries":3},"status":"created"}`, n, data)
}

func nested(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }

// badRecords are no jobs.
var badRecords = map[string]string{
	"no JSON":        "hello",
	"cut":            `{"data":{},"options":{"timest`,
	"null":           "null",
	"empty":          "",
	"number":         "42",
	"string":         `"job"`,
	"list":           "[1,2,3]",
	"deep":           nested(1000),
	"bytes":          "\x00\xff\xfe",
	"options a list": `{"data":{},"options":[],"status":"created"}`,
	"two values":     `{"data":{},"options":{"stacktraces":[]},"status":"created"} {}`,
}

// oddIDs are the ids of good jobs.
var oddIDs = []string{
	" ", "a b", "line\nbreak\r\n", "{brace}", "}{", `"quoted"`, `back\slash`, "\x00", "\xff\xfe", "-1", "0", "1e3", "__proto__",
	strings.Repeat("long", 2500), "%s%n", "$(id)", "jobs", "ключ",
}

// twiceWaiting is the number of the job whose id is in waiting twice.
const twiceWaiting = 996

func malformedRecords(s *scene) {
	s.redis()
	prefix := s.library.layout.prefix
	plant := func(id, record string) {
		s.must("HSET", prefix+"jobs", id, record)
		s.must("LPUSH", prefix+"waiting", id)
	}
	s.fill(100, actor.Job{Ms: 1})
	for name, bad := range badRecords {
		plant("bad "+name, bad)
	}
	n := 1000
	for _, id := range oddIDs {
		n++
		plant(id, record(n, ""))
	}
	plant("", record(999, "")) // the empty id is one like any other
	plant("deep data", record(998, `,"deep":`+nested(1000)))
	plant("large data", record(997, `,"fill":"`+strings.Repeat("x", 10<<20)+`"`))
	plant("no options", `{"data":{"n":995},"options":null,"status":"created"}`)
	plant("twice", record(twiceWaiting, "")) // runs again if its copy comes after its end
	s.must("LPUSH", prefix+"waiting", "twice")
	s.must("LPUSH", prefix+"waiting", "no record")
	s.fill(100, actor.Job{Ms: 1})
	s.mayFail = len(badRecords)
	worker := s.work(actor.Order{})
	s.awaits(s.patience, func() bool { return worker.exited() || s.watch.left() == 0 })
	s.check(!worker.exited(), "the worker crashed: %s", worker.stderr.headline())
	s.watch.forgive("twice")
	s.calm([]*process{worker}, 2*time.Second)

	end, err := s.library.layout.readAll(s.ctx, s.direct)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	handled := 0
	for name, bad := range badRecords {
		id := "bad " + name
		reason, _ := s.do("HGET", prefix+"reasons", id).ToString()
		ok := s.watch.place(id) == "failed" && end.records[id] == bad && reason != ""
		s.check(ok, "bad record %q is in %v, changed: %t, reason %q", name, s.watch.place(id), end.records[id] != bad, reason)
		if ok {
			handled++
		}
	}
	for _, id := range append([]string{"", "deep data", "large data", "no options", "twice"}, oddIDs...) {
		place := s.watch.place(id)
		s.check(place == "succeeded", "job %.20q is in %q", id, place)
		if place == "succeeded" {
			handled++
		}
	}
	s.check(s.watch.place("no record") == "", "the id without a record is in %v", s.watch.place("no record"))
	s.measure("%d of %d handled", handled, len(badRecords)+len(oddIDs)+5)
	s.mostRuns("doubled", s.doubles(twiceWaiting), 0)
}

func junkMessages(s *scene) {
	s.redis()
	prefix := s.library.layout.prefix
	junk := []string{
		"", "hello", "null", "{}", "[]", "42", `{"id":1}`, `{"event":"succeeded"}`, `{"id":null,"event":null}`, nested(1000),
		"\x00\xff", "-1", "1e400", "99999999999999999999999999", `{"id":"1","event":"progress","data":`, strings.Repeat("x", 1<<20),
		`{"id":"1","event":"succeeded","data":{"__proto__":1}}`, "NaN",
	}
	next := 0
	stop := s.every(5*time.Millisecond, func() error {
		next++
		for _, channel := range []string{"events", "earlierDelayed"} {
			if err := s.do("PUBLISH", prefix+channel, junk[next%len(junk)]).Error(); err != nil {
				return err
			}
		}
		return nil
	})
	s.produce(saves(time.Duration(s.size(10, 5))*time.Second, 200, true, actor.Order{}))
	workers := []*process{s.work(actor.Order{Listen: true}), s.work(actor.Order{Listen: true})}
	for _, p := range workers {
		heard := s.awaits(s.patience, func() bool { return p.exited() || p.count(actor.Heard) > 0 })
		s.check(heard, "a worker has heard of no job")
	}
	if s.library.name == ours { // says what it made of them
		for _, channel := range []string{"events", "earlierDelayed"} {
			told := s.awaits(s.patience, func() bool {
				return slices.ContainsFunc(workers[0].entries(), func(e actor.Entry) bool {
					return e.What == actor.Error && strings.Contains(e.Text, `malformed message on "`+prefix+channel+`"`)
				})
			})
			s.check(told, "nobody was told of junk on %s", channel)
		}
	}
	s.drained()
	stop()
	for _, p := range workers {
		s.check(!p.exited(), "a worker crashed: %s", p.stderr.headline())
	}
	s.measure("%d messages, %d events heard", 2*next, s.count(actor.Heard))
	s.mostRuns("doubled", s.doubles(), 0)
}

// swap puts junk in the place of a key, in one step, and back.
const (
	swapIn  = `if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end redis.call('SET', KEYS[1], 'junk')`
	swapOut = `redis.call('DEL', KEYS[1]) if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end`
)

func wrongTypes(s *scene) {
	s.redis()
	keys := store.NewKeys(s.library.layout.prefix).Stored()
	length := time.Duration(s.size(2000, 700)) * time.Millisecond
	s.traffic(time.Duration(len(keys)+2)*length*11/10+3*time.Second, 200, actor.Order{})
	for _, key := range keys {
		s.must("EVAL", swapIn, "2", key, key+"-hidden")
		s.pass(length)
		s.must("EVAL", swapOut, "2", key, key+"-hidden")
		s.pass(length / 10)
	}
	s.resumed(time.Now(), "")
	s.drained()
	for _, p := range s.processes {
		if p.order.Role == actor.Worker {
			s.check(!p.exited(), "a worker crashed: %s", p.stderr.headline())
		}
	}
	s.measure("%d saves refused meanwhile", s.count(actor.Refused))
	s.check(s.count(actor.Refused) > 0, "no save was refused")
	s.measure("%d doubled", s.doubles())
}
