package wire

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMillis(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000, math.MaxInt64: 9223372036855,
	} {
		require.Equal(t, want, Millis(d), d)
	}
	for ms, want := range map[float64]time.Duration{
		0: 0, 1: time.Millisecond, 9223372036854: math.MaxInt64, 9223372036853: 9223372036853 * time.Millisecond, MaxMillis: math.MaxInt64,
	} {
		require.Equal(t, want, FromMillis(ms), ms)
	}
	require.EqualValues(t, 1700000000124, DueMillis(time.UnixMilli(1700000000123).Add(1)))
	require.EqualValues(t, 1700000000123, DueMillis(time.UnixMilli(1700000000123)))
}

func FuzzDecodeDue(f *testing.F) {
	for _, payload := range []string{"0", "1753700000000", "1.5e12", "NaN", "-1", "1e400", "Inf", "0x1p50", "1_000", "", " 1", "9007199254740993"} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		due, ok := DecodeDue(payload)
		if ok && (due.UnixMilli() < 0 || due.UnixMilli() > MaxMillis) {
			t.Fatalf("took %q for %v", payload, due)
		}
	})
}
