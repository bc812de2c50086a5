package redistest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A failure becomes an error, after clean-up.
func TestProgram(t *testing.T) {
	t.Parallel()
	var order []int
	var dir string
	err := Program("test", func(tb testing.TB) error {
		dir = tb.TempDir()
		require.DirExists(t, dir)
		tb.Cleanup(func() { order = append(order, 1) })
		tb.Cleanup(func() { order = append(order, 2) })
		tb.Fatalf("no luck")
		return nil
	})
	require.EqualError(t, err, "no luck")
	require.Equal(t, []int{2, 1}, order)
	require.NoDirExists(t, dir)

	own := errors.New("own")
	require.ErrorIs(t, Program("test", func(testing.TB) error { return own }), own)
	require.PanicsWithValue(t, "other", func() { _ = Program("test", func(testing.TB) error { panic("other") }) })
}
