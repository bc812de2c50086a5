package actor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// stub takes saves, and tells of each.
type stub struct {
	Queue

	saved func()
}

func (s stub) Job([]byte) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		s.saved()
		return "id", ctx.Err()
	}
}

func (stub) Stored(error) bool { return false }

// producer runs one that is told to end when it has made so many saves, and counts the
// jobs that it has saved.
func producer(t *testing.T, o Order, enough int) (saved int) {
	file, err := os.Create(filepath.Join(t.TempDir(), "ledger"))
	require.NoError(t, err)
	defer file.Close()
	ctx, cancel := context.WithCancel(t.Context())
	saves := 0
	a := &actor{Order: o, ledger: ledger{file: file}, queue: stub{saved: func() {
		if saves++; saves == enough {
			cancel()
		}
	}}}
	err = a.produce(ctx)
	cancel()
	if o.Open {
		require.NoError(t, err)
	}
	text, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	require.NotContains(t, string(text), `"`+Refused+`"`, "a save was broken off")
	return strings.Count(string(text), `"`+Saved+`"`)
}

func TestOpenProducerGoesOnUntilToldTo(t *testing.T) {
	require.Equal(t, 30, producer(t, Order{Count: 10, Open: true}, 30))
}

func TestOpenProducerSavesAtLeastItsCount(t *testing.T) {
	require.Equal(t, 10, producer(t, Order{Count: 10, Open: true}, 3))
}

func TestProducerEndsWithItsCount(t *testing.T) {
	require.Equal(t, 10, producer(t, Order{Count: 10}, 30))
}
