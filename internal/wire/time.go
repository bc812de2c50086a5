package wire

import (
	"math"
	"strconv"
	"time"
)

// MaxMillis is the largest time in milliseconds that Node and Lua hold exactly: 2^53.
const MaxMillis = 1 << 53

// Millis rounds a duration up to whole milliseconds.
func Millis(d time.Duration) int64 {
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	return int64(ms)
}

// FromMillis converts the milliseconds of a record to a duration. It rounds up to
// whole milliseconds, which is what is stored. What a time.Duration cannot hold
// becomes the longest one.
func FromMillis(ms float64) time.Duration {
	if ms >= float64(math.MaxInt64/time.Millisecond) {
		return math.MaxInt64
	}
	return time.Duration(math.Ceil(ms)) * time.Millisecond
}

// DueMillis rounds a time up to whole milliseconds since 1970, so that a job never
// starts before its time.
func DueMillis(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

// DecodeDue reads a message of the channel `earlierDelayed`: the time, in
// milliseconds since 1970, at which the first delayed job is due. It reports
// whether the message is a time between 0 and MaxMillis.
func DecodeDue(message string) (due time.Time, ok bool) {
	ms, err := strconv.ParseFloat(message, 64)
	if err != nil || !(ms >= 0 && ms <= MaxMillis) { // NaN is neither
		return time.Time{}, false
	}
	return time.UnixMilli(int64(ms)), true
}
