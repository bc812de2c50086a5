package store

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a script was refused with is known by its name, whatever the server wraps it in.
func TestRefusals(t *testing.T) {
	t.Parallel()
	before7 := "-ERR Error running script (call to f_e812808340999ba27b58dd1f076a28bdd49f82bd): @user_script:1: @user_script: 1: -"
	for text, passes := range map[string]bool{
		"-READONLY You can't write against a read only replica.":                                true,
		before7 + "READONLY You can't write against a read only replica.":                       true,
		before7 + "NOREPLICAS Not enough good replicas to write.":                               true,
		"-WRONGTYPE Operation against a key holding the wrong kind of value":                    false,
		before7 + "WRONGTYPE Operation against a key: -READONLY is what somebody called it":     false,
		"-ERR Error running script (call to f_1): @user_script:3: attempt to index a nil value": false,
		"-LOADING Redis is loading the dataset in memory":                                       true,
		"-OOM command not allowed when used memory > 'maxmemory'.":                              false,
		before7 + "OOM command not allowed when used memory > 'maxmemory'.":                     false,
	} {
		m := redisMessage(t, text)
		err := m.Error()
		require.Error(t, err, text)
		require.Equal(t, passes, transient(err), text)
		k := NewKeys("bq:{q}:")
		require.Equal(t, text == "-OOM command not allowed when used memory > 'maxmemory'." || text == before7+"OOM command not allowed when used memory > 'maxmemory'.",
			errors.Is(k.explain(err), ErrOutOfMemory), text)
	}
}
