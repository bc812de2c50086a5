package store

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// No name is left in a script, and each script declares just the keys that it uses.
func TestScriptsAreAssembled(t *testing.T) {
	t.Parallel()
	left := regexp.MustCompile(`\b[KA]\.\w+`)
	declared := regexp.MustCompile(`KEYS\[(\w+)\]`)
	shas := make(map[string]string)
	for _, s := range Scripts() {
		require.Empty(t, left.FindAllString(s.Source, -1), s.Name)
		require.Empty(t, shas[s.SHA], s.Name)
		shas[s.SHA] = s.Name
		used := make(map[string]bool)
		for _, match := range declared.FindAllStringSubmatch(s.Source, -1) {
			used[match[1]] = true
		}
		require.Len(t, used, len(s.keys), s.Name)
		require.Len(t, s.keys, len(slices.Compact(slices.Sorted(slices.Values(s.keys)))), s.Name)
	}
	files, err := luaFiles.ReadDir("lua")
	require.NoError(t, err)
	for _, file := range files {
		text, err := luaFiles.ReadFile("lua/" + file.Name())
		require.NoError(t, err)
		first := strings.TrimPrefix(strings.SplitN(string(text), "\n", 2)[0], "-- ")
		used := slices.ContainsFunc(Scripts(), func(s *Script) bool { return strings.Contains(s.Source, first) })
		require.True(t, used, "%s is in no script", file.Name())
	}
}

func TestNamesOfScripts(t *testing.T) {
	t.Parallel()
	s := &Script{header: []string{"id", "how"}}
	require.Equal(t, "call(KEYS[1], ARGV[2], KEYS[2], KEYS[1], 3, ARGV[3])",
		s.expand("test", "call(K.jobs, A.how, K.waiting, K.jobs, A.rest, ARGV[3])"))
	require.Equal(t, []string{"bq:{q}:jobs", "bq:{q}:waiting"}, NewKeys("bq:{q}:").keysOf(s))
	require.PanicsWithValue(t, "lua/test.lua: unknown key K.job", func() { s.expand("test", "K.job") })
	require.PanicsWithValue(t, "lua/test.lua: unknown argument A.ids", func() { s.expand("test", "A.ids") })
	require.PanicsWithValue(t, `lua/counts.lua: argument "id" is not used`, func() { assemble("counts", "id", "counts") })
	require.Equal(t, "want", strings.Fields(turnHeader)[wantAt])
}

// Every row of the table says what it is.
func TestKeyTable(t *testing.T) {
	t.Parallel()
	k := NewKeys("bq:{q}:")
	for i, row := range keyTable {
		require.NotEmpty(t, row.name)
		require.NotEmpty(t, row.kind, row.name)
		require.NotEmpty(t, row.what, row.name)
		key, ok := keyNamed(row.name)
		require.True(t, ok)
		require.Equal(t, Key(i), key, "%s is there twice", row.name)
		require.Equal(t, row.kind != Channel, slices.Contains(k.Stored(), k.Name(key)), row.name)
	}
	require.Equal(t, "bq:{q}:waiting", k.Name(Waiting))
	require.ElementsMatch(t, strings.Fields("id jobs waiting active succeeded failed delayed stalling stallBlock workers owners stalls calls reasons"),
		NewKeys("").Stored(), "what docs/acl.md and the tests of every kind of key know")
}
