package acl_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// sightings is what was seen of all roles, everywhere.
type sightings struct {
	commands commandTable               // of the servers
	roles    map[string]*roleSightings  // by name
	keys     map[string]bool            // that any of them uses
	sentinel map[string]bool            // what to grant at Sentinels: commands and channels
	later    map[string]bool            // commands that were sent, and that the servers do not know
	settings map[string]map[string]bool // commands that a setting needs besides
	since    map[string]string          // command -> the version of Redis it came with
}

type roleSightings struct {
	commands map[string]bool            // that it may run only if it is granted them
	writes   map[string]bool            // keys, without those that scripts declare
	ran      map[string]map[string]bool // script -> commands
}

func newSightings(site *redisSite) *sightings {
	s := &sightings{
		commands: site.commands, roles: make(map[string]*roleSightings), keys: make(map[string]bool), sentinel: make(map[string]bool),
		later: make(map[string]bool), settings: make(map[string]map[string]bool), since: make(map[string]string),
	}
	for _, role := range allRoles {
		s.roles[role.name] = &roleSightings{commands: make(map[string]bool), writes: make(map[string]bool), ran: make(map[string]map[string]bool)}
	}
	return s
}

// scripting are the commands that name more keys than they touch. Redis's key specifications
// of EVAL count them as writing to each key. So the commands in a script limit what it does.
var scripting = []string{"eval", "evalsha"}

// add takes in what a role was seen to use at a site.
func (s *sightings) add(t *testing.T, r *roleRun) {
	t.Helper()
	role := s.roles[r.user]
	for _, use := range r.notes.data {
		if !s.note(r.site.commands, use.name, role.commands) {
			continue
		}
		for key, writes := range r.site.keys(t, use.args) {
			require.True(t, strings.HasPrefix(key, keyBase), "%v touches %q", use.args, key)
			if !slices.Contains(scripting, use.name) {
				s.keys[key] = true
				if writes {
					role.writes[key] = true
				}
			}
		}
		if r.site.commands.is(use.name, "pubsub") {
			for _, channel := range channelsOf(use) {
				require.True(t, strings.HasPrefix(channel, keyBase), "%v uses channel %q", use.args, channel)
			}
		}
	}
	for _, use := range r.notes.atSentinel {
		if !s.note(r.site.sentinelCommands, use.name, s.sentinel) || use.name != "subscribe" {
			continue
		}
		for _, channel := range channelsOf(use) {
			s.sentinel["&"+channel] = true
		}
	}
	for sha, commands := range r.notes.ran {
		if role.ran[sha] == nil {
			role.ran[sha] = make(map[string]bool)
		}
		maps.Copy(role.ran[sha], commands)
	}
}

// note takes in a command, unless nobody needs a permission for it.
func (s *sightings) note(commands commandTable, name string, into map[string]bool) bool {
	if _, known := commands[name]; !known {
		s.later[name] = true
		return false
	}
	if commands.is(name, "no_auth") {
		return false
	}
	into[name] = true
	return true
}

func channelsOf(use usage) []string {
	if use.name == "publish" {
		return use.args[1:2]
	}
	return use.args[1:]
}

// keys asks the server which keys a command has, and which of them it writes to.
func (site *redisSite) keys(t *testing.T, args []string) map[string]bool {
	t.Helper()
	client := site.clients[0]
	keys := make(map[string]bool)
	if len(args) == 1 {
		return nil
	}
	found, err := client.Do(queuetest.Bounded(t), client.B().Arbitrary("COMMAND", "GETKEYSANDFLAGS").Args(args...).Build()).ToArray()
	if _, refused := rueidis.IsRedisErr(err); refused {
		require.ErrorContains(t, err, "no key arguments", args)
		return nil
	}
	require.NoError(t, err)
	for _, message := range found {
		pair, err := message.ToArray()
		require.NoError(t, err)
		flags, err := pair[1].AsStrSlice()
		require.NoError(t, err)
		keys[textOf(pair[0])] = slices.ContainsFunc(flags, func(flag string) bool {
			return flag == "insert" || flag == "delete" || flag == "update"
		})
	}
	return keys
}

// addSettings takes in what clients with other settings need besides.
func (s *sightings) addSettings(t *testing.T, site *redisSite) {
	for _, setting := range allSettings {
		if site.cluster != nil && !setting.cluster {
			continue
		}
		r := startRun(t, site, allRoles[0].name)
		client := r.dial(setting.settle)
		require.NoError(t, r.open(client, beequeue.Config{}).Ready(queuetest.Bounded(t)))
		client.Close()
		r.end()
		if s.settings[setting.what] == nil {
			s.settings[setting.what] = make(map[string]bool)
		}
		for _, use := range r.notes.data {
			if !s.everyone(use.name) {
				s.note(site.commands, use.name, s.settings[setting.what])
			}
		}
		for _, use := range r.notes.atSentinel {
			if !s.sentinel[use.name] {
				s.note(site.sentinelCommands, use.name, s.settings[setting.what])
			}
		}
	}
}

// everyone reports whether every role has a command.
func (s *sightings) everyone(command string) bool {
	for _, role := range s.roles {
		if !role.commands[command] {
			return false
		}
	}
	return true
}

// requireComplete requires that nothing was left out: each script ran each command in its
// source, and each command that the Go sources build was sent.
func (s *sightings) requireComplete(t *testing.T) {
	t.Helper()
	names, sources := libraryScripts(t)
	used, ran := make(map[string]bool), make(map[string]bool)
	for who, role := range s.roles {
		for sha, commands := range role.ran {
			script := names[sha]
			require.NotEmpty(t, script, "%s ran a script that is none of the library's", who)
			ran[script] = true
			for _, command := range sources[script] {
				if who == "observer" && s.commands.is(command, "write") {
					continue // Audit's script has what Repair does
				}
				require.True(t, commands[command], "%s of %s.lua was not seen in what %s does", command, script, who)
			}
			for command := range commands {
				require.Contains(t, sources[script], command, "%s ran it", script)
			}
		}
		maps.Copy(used, role.commands)
	}
	for script := range sources {
		require.True(t, ran[script], "%s.lua was run by nobody", script)
	}
	for command := range s.roles["observer"].commands {
		require.False(t, s.commands.is(command, "write"), "an observer writes: %s", command)
	}

	built := regexp.MustCompile(`\b(?:b|B\(\))\.([A-Z]\w*)\(|(?:Arbitrary\(|Scanned\(ctx, )"([A-Z]+)"`)
	for _, file := range libraryFiles(t, ".go") {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range built.FindAllStringSubmatch(string(source), -1) {
			command := strings.ToLower(match[1] + match[2])
			if _, known := s.commands[command]; known {
				require.True(t, used[command], "%s has %s, which nobody was seen to use", file, command)
			}
		}
	}
}

// came gives the version of Redis that a command came with.
func (s *sightings) came(t *testing.T, site *redisSite, command string) (major, minor int) {
	t.Helper()
	if s.since[command] == "" {
		message := site.nodes[0].Do(t, "COMMAND", "DOCS", command)
		docs, err := message.ToArray()
		require.NoError(t, err)
		fields, err := docs[1].ToArray()
		require.NoError(t, err)
		for i := 0; i+1 < len(fields); i += 2 {
			if textOf(fields[i]) == "since" {
				s.since[command] = textOf(fields[i+1])
			}
		}
		require.NotEmpty(t, s.since[command], command)
	}
	_, err := fmt.Sscanf(s.since[command], "%d.%d", &major, &minor)
	require.NoError(t, err)
	return major, minor
}

// newer gives the commands that Redis 6.2 does not have.
func (s *sightings) newer(t *testing.T, site *redisSite) (names []string) {
	t.Helper()
	for _, role := range s.roles {
		for command := range role.commands {
			if major, minor := s.came(t, site, command); major > 6 || major == 6 && minor > 2 {
				names = append(names, command)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// line gives the line that makes a user for a role. With old, it is for Redis 6.2, which
// does not tell reading from writing and has no selectors.
func (s *sightings) line(t *testing.T, site *redisSite, name string, old bool) string {
	t.Helper()
	role := s.roles[name]
	words := []string{"ACL SETUSER", name, "reset on", ">" + password, "resetchannels"}
	// A role that writes to most of the keys may write to all.
	wide := old || 2*len(role.writes) > len(s.keys)
	if wide {
		words = append(words, "~"+keyBase+"*")
	} else {
		words = append(words, "%R~"+keyBase+"*")
		for _, key := range slices.Sorted(maps.Keys(role.writes)) {
			words = append(words, "~"+key)
		}
	}
	words = append(words, "&"+keyBase+"*")
	newer := s.newer(t, site)
	for _, command := range slices.Sorted(maps.Keys(role.commands)) {
		if (wide || !slices.Contains(scripting, command)) && (!old || !slices.Contains(newer, command)) {
			words = append(words, "+"+command)
		}
	}
	if !wide {
		words = append(words, "(+"+strings.Join(scripting, " +"), "~"+keyBase+"*)")
	}
	return strings.Join(words, " ")
}

// blocks gives what is to be published.
func (s *sightings) blocks(t *testing.T, site *redisSite) map[string]string {
	t.Helper()
	code := func(lines ...string) string { return "```text\n" + strings.Join(lines, "\n") + "\n```\n" }
	blocks := make(map[string]string)
	var old []string
	for _, role := range allRoles {
		blocks[role.name] = code(s.line(t, site, role.name, false))
		old = append(old, s.line(t, site, role.name, true))
	}
	blocks["redis-6.2"] = code(old...)
	atSentinel := []string{"ACL SETUSER", sentinelUser, "reset on", ">" + password, "resetchannels"}
	for _, word := range slices.Sorted(maps.Keys(s.sentinel)) {
		if !strings.HasPrefix(word, "&") {
			word = "+" + word
		}
		atSentinel = append(atSentinel, word)
	}
	blocks["sentinel"] = code(strings.Join(atSentinel, " "))
	var settings strings.Builder
	list := func(what string, commands map[string]bool) {
		require.NotEmpty(t, commands, what)
		fmt.Fprintf(&settings, "- %s: `+%s`\n", what, strings.Join(slices.Sorted(maps.Keys(commands)), "` `+"))
	}
	for _, setting := range allSettings {
		list(setting.what, s.settings[setting.what])
	}
	list(laterVersions, s.later)
	blocks["settings"] = settings.String()
	return blocks
}
