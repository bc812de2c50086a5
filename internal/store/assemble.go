package store

import (
	"crypto/sha1" //nolint:gosec // names a script in Redis, guards nothing
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// A Script is one Lua script, assembled from its sections.
//
// Sections are files in lua/, joined in the order in which they run. They name keys
// and arguments: K.waiting is the key of that name in keyTable, A.token the argument of
// that name in the script's header, and A.rest the index of the first argument behind
// the header. The names become KEYS[n], ARGV[n] and a number when the script is
// assembled, so they cost nothing when it runs.
type Script struct {
	Name   string
	Source string
	SHA    string // what Redis knows the script by
	keys   []Key  // in the order of KEYS
	header []string
	lua    *rueidis.Lua
}

var (
	keyWord = regexp.MustCompile(`\bK\.([A-Za-z]+)\b`)
	argWord = regexp.MustCompile(`\bA\.([A-Za-z]+)\b`)
)

// assemble joins sections to a script. The header names the arguments that every call
// has, separated by spaces. It panics on a name that is in neither table, and on a name
// of the header that no section uses: the files are part of the package, not input.
func assemble(name, header string, sections ...string) *Script {
	s := &Script{Name: name, header: strings.Fields(header)}
	var text strings.Builder
	for _, section := range sections {
		source, err := luaFiles.ReadFile("lua/" + section + ".lua")
		if err != nil {
			panic(err)
		}
		text.WriteString(s.expand(section, string(source)))
	}
	s.Source = text.String()
	for i, argument := range s.header {
		if !strings.Contains(s.Source, argv(i)) {
			panic(fmt.Sprintf("lua/%s.lua: argument %q is not used", name, argument))
		}
	}
	s.SHA = fmt.Sprintf("%x", sha1.Sum([]byte(s.Source))) //nolint:gosec // as above
	s.lua = rueidis.NewLuaScript(s.Source)
	return s
}

// expand puts indexes in the place of names.
func (s *Script) expand(section, source string) string {
	source = keyWord.ReplaceAllStringFunc(source, func(word string) string {
		key, ok := keyNamed(word[len("K."):])
		if !ok {
			panic(fmt.Sprintf("lua/%s.lua: unknown key %s", section, word))
		}
		at := slices.Index(s.keys, key)
		if at < 0 {
			at = len(s.keys)
			s.keys = append(s.keys, key)
		}
		return "KEYS[" + strconv.Itoa(at+1) + "]"
	})
	return argWord.ReplaceAllStringFunc(source, func(word string) string {
		name := word[len("A."):]
		if name == "rest" {
			return strconv.Itoa(len(s.header) + 1)
		}
		at := slices.Index(s.header, name)
		if at < 0 {
			panic(fmt.Sprintf("lua/%s.lua: unknown argument %s", section, word))
		}
		return argv(at)
	})
}

func argv(at int) string { return "ARGV[" + strconv.Itoa(at+1) + "]" }

// keysOf returns the names of a script's keys in one queue, in the order of KEYS.
func (k *Keys) keysOf(s *Script) []string {
	names := make([]string, len(s.keys))
	for i, key := range s.keys {
		names[i] = k.names[key]
	}
	return names
}
