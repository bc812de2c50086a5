package pulse

const windows = 10 // in which something may be calm for once

// Number is what can be counted.
type Number interface{ ~int | ~int64 | ~float64 }

// Calmest gives how much a count grew in one window of time after the other. It ends with
// the first window in which the count grew by no more than most, or after ten windows.
// The func pass lets a window pass.
func Calmest[N Number](most N, count func() N, pass func()) (grown []N) {
	last := count()
	for range windows {
		pass()
		now := count()
		grown = append(grown, now-last)
		if now-last <= most {
			break
		}
		last = now
	}
	return grown
}
