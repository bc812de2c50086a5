package store

import "sync"

// scripts are all scripts of the package. The func that calls each is in the Go file of
// its family.
type scripts struct {
	save, turn, remove, retry *Script // named calls, see call.go
	heartbeat, sweep, raise   *Script // harmless when repeated
	audit                     *Script // harmless when repeated, or reads only
	lookup, counts            *Script // read only
}

// allScripts returns the scripts, which all queues of a process share.
var allScripts = sync.OnceValue(func() *scripts { //nolint:gochecknoglobals // does not change
	return &scripts{
		save:      assemble("save", saveHeader, "redis", "call", "save"),
		turn:      assemble("turn", turnHeader, "redis", "call", "claimed", "turn", "turn_finish", "turn_claim", "turn_reply"),
		remove:    assemble("remove", "lane seq id", "redis", "call", "remove"),
		retry:     assemble("retry", "lane seq id", "redis", "call", "retry"),
		heartbeat: assemble("heartbeat", "token lease unheard", "redis", "claimed", "heartbeat"),
		sweep:     assemble("sweep", sweepHeader, "redis", "sweep"),
		raise:     assemble("raise", "most", "redis", "raise"),
		audit:     assemble("audit", "mend", "redis", "audit"),
		lookup:    assemble("lookup", "id", "lookup"),
		counts:    assemble("counts", "", "counts"),
	}
})

// The headers of the longer scripts. Each script's file says what they mean.
const (
	saveHeader  = "lane seq renew plain maxWaiting"
	turnHeader  = "lane seq token lease want maxStalls publish omitRecords groups"
	sweepHeader = "interval maxStalls token claim callsCursor ownersCursor stallsCursor retention how round"
)

// Scripts returns every script, for tests that ask what the library runs.
func Scripts() []*Script {
	s := allScripts()
	return []*Script{s.save, s.turn, s.remove, s.retry, s.heartbeat, s.sweep, s.raise, s.audit, s.lookup, s.counts}
}
