package acl_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // names a script in Redis, guards nothing
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/internal/redistest"
	"github.com/gobeequeue/beequeue/internal/store"
)

// wireNotes has the commands of one user: those that its client wrote to its connections,
// and those that its scripts ran, from MONITOR. It leaves out what other users do.
type wireNotes struct {
	t    *testing.T
	site *redisSite

	mu         sync.Mutex
	own        map[string]bool            // our ends of the user's connections
	data       map[string]usage           // what was done at servers with data, by what it is and its keys
	atSentinel map[string]usage           // likewise at Sentinels
	ran        map[string]map[string]bool // script -> the commands it ran
	closers    []func()
}

// usage is a command with arguments, as it was seen once.
type usage struct {
	name string // as ACLs write it, such as "client|setname"
	args []string
}

// takeNotes begins to take notes. The connections are those whose client was made with
// the option that watch gives.
func takeNotes(t *testing.T, site *redisSite) *wireNotes {
	t.Helper()
	n := &wireNotes{
		t: t, site: site, own: make(map[string]bool), data: make(map[string]usage),
		atSentinel: make(map[string]usage), ran: make(map[string]map[string]bool),
	}
	for _, node := range site.nodes {
		n.monitor(node)
	}
	return n
}

// watch is an option for the user's client.
func (n *wireNotes) watch(o *rueidis.ClientOption) {
	o.DialCtxFn = func(ctx context.Context, address string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.own[conn.LocalAddr().String()] = true
		return &notedConn{Conn: conn, notes: n, address: address}, nil
	}
}

// notedConn is a connection that keeps what is written to it.
type notedConn struct {
	net.Conn
	notes   *wireNotes
	address string
	rest    []byte // of a command whose end is still to come
}

func (c *notedConn) Write(b []byte) (int, error) {
	c.rest = append(c.rest, b...)
	for {
		args, length := parseRequest(c.rest)
		if args == nil {
			return c.Conn.Write(b)
		}
		c.notes.sent(c.address, args)
		c.rest = c.rest[length:]
	}
}

// parseRequest reads the command at the beginning of what a client wrote. It gives nothing
// until the command is complete.
func parseRequest(b []byte) (args []string, length int) {
	r := bytes.NewReader(b)
	reader := bufio.NewReader(r)
	number := func(kind byte) (int, bool) {
		line, err := reader.ReadString('\n')
		if err != nil || line[0] != kind {
			return 0, false
		}
		n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
		return n, err == nil
	}
	count, ok := number('*')
	if !ok {
		return nil, 0
	}
	for range count {
		size, ok := number('$')
		if !ok {
			return nil, 0
		}
		word := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(reader, word); err != nil {
			return nil, 0
		}
		args = append(args, string(word[:size]))
	}
	return args, len(b) - r.Len() - reader.Buffered()
}

// sent notes a command that the user sends to a server.
func (n *wireNotes) sent(address string, args []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.ContainsFunc(n.site.sentinels, func(s *redistest.Server) bool { return s.Addr == address }) {
		n.note(n.atSentinel, n.site.sentinelCommands, args)
	} else {
		n.note(n.data, n.site.commands, args)
	}
}

// note keeps one command of each name and set of keys. The caller has the lock.
func (n *wireNotes) note(uses map[string]usage, commands commandTable, args []string) string {
	use := usage{name: commands.name(args), args: args}
	sign := use.name
	for _, arg := range args[1:] {
		if strings.HasPrefix(arg, keyBase) {
			sign += " " + arg
		}
	}
	if _, known := uses[sign]; !known {
		uses[sign] = use
	}
	return use.name
}

// has reports whether the user has sent a command to a server with data.
func (n *wireNotes) has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, use := range n.data {
		if use.name == name {
			return true
		}
	}
	return false
}

// monitorLine is what MONITOR says of a command: when, the database, who, what.
var monitorLine = regexp.MustCompile(`^\+[\d.]+ \[\d+ (\S+)\] (.*)$`)

// monitor takes notes of what the user's scripts run at a server. Scripts run in one step,
// so their commands follow them directly.
func (n *wireNotes) monitor(s *redistest.Server) {
	n.t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	require.NoError(n.t, err)
	_, err = io.WriteString(conn, "MONITOR\r\n")
	require.NoError(n.t, err)
	reader := bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	require.NoError(n.t, err)
	require.Equal(n.t, "+OK\r\n", line)

	const over = "that was all"
	var reading sync.WaitGroup
	reading.Go(func() {
		script := "" // of the user's, whose commands follow
		for {
			line, err := reader.ReadString('\n')
			if err != nil {
				return
			}
			parts := monitorLine.FindStringSubmatch(strings.TrimSpace(line))
			if parts == nil {
				continue
			}
			args := unquote(parts[2])
			if script = n.ranBy(script, parts[1], args); len(args) == 2 && args[1] == over {
				return
			}
		}
	})
	n.closers = append(n.closers, func() {
		s.Do(n.t, "ECHO", over)
		reading.Wait()
		_ = conn.Close()
	})
}

// ranBy takes a line of MONITOR, and gives the user's script under way.
func (n *wireNotes) ranBy(script, source string, args []string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case source == "lua" && script != "":
		if n.ran[script] == nil {
			n.ran[script] = make(map[string]bool)
		}
		n.ran[script][n.note(n.data, n.site.commands, args)] = true
		return script
	case source == "lua" || !n.own[source]:
		return ""
	case strings.EqualFold(args[0], "EVALSHA"):
		return args[1]
	case strings.EqualFold(args[0], "EVAL"):
		return fmt.Sprintf("%x", sha1.Sum([]byte(args[1]))) //nolint:gosec // as above
	}
	return ""
}

// unquote reads the words of a line of MONITOR, whose quotes are Go's as well.
func unquote(text string) (words []string) {
	for text != "" {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return append(words, text)
		}
		word, _ := strconv.Unquote(quoted)
		words = append(words, word)
		text = strings.TrimSpace(text[len(quoted):])
	}
	return words
}

// end returns when everything has been noted that was done.
func (n *wireNotes) end() {
	for _, f := range n.closers {
		f()
	}
}

// libraryScripts gives the names of the library's scripts by SHA1, and the commands in the
// source of each by its name.
func libraryScripts(t *testing.T) (names map[string]string, commands map[string][]string) {
	t.Helper()
	called := regexp.MustCompile(`\b(?:call|bulk)\('([A-Z]+)'`)
	names, commands = make(map[string]string), make(map[string][]string)
	for _, script := range store.Scripts() {
		name, text := script.Name, script.Source
		names[script.SHA] = name
		found := make(map[string]bool)
		for _, match := range called.FindAllStringSubmatch(strings.ReplaceAll(text, "pcall(", "call("), -1) {
			found[strings.ToLower(match[1])] = true
		}
		commands[name] = slices.Sorted(maps.Keys(found))
	}
	return names, commands
}

// commandTable are the commands a server knows, by the names that ACLs use.
type commandTable map[string]commandInfo

type commandInfo struct {
	flags   []string
	parting bool // it is nothing without a subcommand
}

func commandsOf(t *testing.T, s *redistest.Server) commandTable {
	t.Helper()
	commands := make(commandTable)
	var add func(message rueidis.RedisMessage)
	add = func(message rueidis.RedisMessage) {
		fields, err := message.ToArray()
		require.NoError(t, err)
		name, err := fields[0].ToString()
		require.NoError(t, err)
		flags, err := fields[2].AsStrSlice()
		require.NoError(t, err)
		parts, err := fields[9].ToArray()
		require.NoError(t, err)
		commands[name] = commandInfo{flags: flags, parting: len(parts) > 0}
		for _, part := range parts {
			add(part)
		}
	}
	list := s.Do(t, "COMMAND")
	all, err := list.ToArray()
	require.NoError(t, err)
	for _, message := range all {
		add(message)
	}
	return commands
}

// name gives what ACLs call a command.
func (c commandTable) name(args []string) string {
	name := strings.ToLower(args[0])
	if c[name].parting && len(args) > 1 {
		name += "|" + strings.ToLower(args[1])
	}
	return name
}

func (c commandTable) is(name, flag string) bool { return slices.Contains(c[name].flags, flag) }
