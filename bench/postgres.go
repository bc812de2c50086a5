package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres is a PostgreSQL server of our own, at its default settings but for the
// port. Its data is in the directory for temporary files: TMPDIR chooses the disk,
// and with it what a commit costs.
type postgres struct {
	URL string

	dir     string
	attr    *syscall.SysProcAttr
	command *exec.Cmd
	ended   chan struct{} // closed when the server is gone
}

var errNoPostgres = errors.New("no PostgreSQL: initdb and postgres are neither on the PATH nor in /usr/lib/postgresql")

const postgresStops = 30 * time.Second

// startPostgres returns when the server answers; Stop ends it. ctx is for the start.
func startPostgres(ctx context.Context) (*postgres, error) {
	initdb, server, err := findPostgres()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "beequeue-postgres-")
	if err != nil {
		return nil, err
	}
	p := &postgres{dir: dir, attr: &syscall.SysProcAttr{}, ended: make(chan struct{})}
	err = p.giveUpRoot()
	if err == nil {
		err = p.initialize(ctx, initdb)
	}
	if err == nil {
		err = p.launch(server)
	}
	if err == nil {
		err = p.answers(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.Stop())
	}
	return p, nil
}

// findPostgres looks in PATH, and then where Debian keeps its versions.
func findPostgres() (initdb, server string, err error) {
	initdb, err = exec.LookPath("initdb")
	if err == nil {
		if server, err = exec.LookPath("postgres"); err == nil {
			return initdb, server, nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is good
	if len(found) == 0 {
		return "", "", errNoPostgres
	}
	version := func(path string) float64 {
		return number(filepath.Base(filepath.Dir(filepath.Dir(path))))
	}
	initdb = slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })
	return initdb, filepath.Join(filepath.Dir(initdb), "postgres"), nil
}

// giveUpRoot has another user run PostgreSQL, which refuses to be run by root.
func (p *postgres) giveUpRoot() error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	p.attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(p.dir, int(uid), int(gid))
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }
func (p *postgres) log() string  { return filepath.Join(p.dir, "log") }

// initialize makes the files of a new server.
func (p *postgres) initialize(ctx context.Context, initdb string) error {
	// Sorting as C does is the fastest, and there on every machine.
	command := exec.CommandContext(ctx, initdb, "--pgdata", p.data(), "--username", "postgres",
		"--auth", "trust", "--encoding", "UTF8", "--locale", "C")
	command.Dir, command.SysProcAttr = p.dir, p.attr
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (p *postgres) launch(server string) error {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	// A file: a pipe would have to be read as long as the server runs.
	log, err := os.Create(p.log())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own
	command := exec.Command(server, "-D", p.data(), "-c", "listen_addresses=127.0.0.1",
		"-c", "port="+port, "-c", "unix_socket_directories=")
	detach(p.attr)
	command.Dir, command.SysProcAttr = p.dir, p.attr
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	p.command = command
	p.URL = "postgres://postgres@" + address + "/postgres?sslmode=disable"
	go func() {
		_ = command.Wait() // how it ended is in its log
		close(p.ended)
	}()
	return nil
}

// answers waits until the server does.
func (p *postgres) answers(ctx context.Context) error {
	for {
		conn, err := pgx.Connect(ctx, p.URL)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.ended:
			text, _ := os.ReadFile(p.log()) // without it there is nothing to tell
			return fmt.Errorf("it ended:\n%s", text)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// CPU is the time the server has used so far, with all its processes, in seconds.
func (p *postgres) CPU() (float64, error) {
	const ticks = 100 // a second, for programs, whatever the kernel counts in
	pid := p.command.Process.Pid
	for {
		server, err := processTimes(pid)
		if err != nil {
			return 0, err
		}
		sum := server.own + server.children
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return 0, err
		}
		for _, entry := range entries {
			child, err := strconv.Atoi(entry.Name())
			if err != nil {
				continue // not a process
			}
			if t, err := processTimes(child); err == nil && t.parent == pid { // else it has ended
				sum += t.own
			}
		}
		// A process that ended meanwhile may be missing, or be there twice.
		again, err := processTimes(pid)
		if err != nil {
			return 0, err
		}
		if again.children == server.children {
			return float64(sum) / ticks, nil
		}
	}
}

// times is what /proc says of a process, in ticks of user and system time.
type times struct {
	parent   int
	own      int
	children int // that have ended
}

func processTimes(pid int) (times, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return times{}, err
	}
	// proc(5) counts from 1, and the name, 2, may have spaces and parentheses in it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 15 {
		return times{}, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	field := func(n int) int {
		value, _ := strconv.Atoi(fields[n-3]) // these are numbers
		return value
	}
	return times{parent: field(4), own: field(14) + field(15), children: field(16) + field(17)}, nil
}

// Clear empties River's tables, where there are any.
func (p *postgres) Clear(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.URL)
	if err != nil {
		return fmt.Errorf("clear PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var tables *string
	err = conn.QueryRow(ctx, `SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables
		WHERE schemaname = 'public' AND tablename LIKE 'river\_%' AND tablename <> 'river_migration'`).Scan(&tables)
	if err == nil && tables != nil {
		_, err = conn.Exec(ctx, "TRUNCATE "+*tables)
	}
	if err != nil {
		return fmt.Errorf("clear PostgreSQL: %w", err)
	}
	return nil
}

// Stop ends the server and removes its data.
func (p *postgres) Stop() error {
	var failed error
	if p.command != nil {
		_ = p.command.Process.Signal(syscall.SIGINT) // fast: without waiting for clients; it may be gone
		select {
		case <-p.ended:
		case <-time.After(postgresStops):
			failed = fmt.Errorf("PostgreSQL did not stop in %v", postgresStops)
			_ = p.command.Process.Signal(syscall.SIGQUIT)
			<-p.ended
		}
	}
	return errors.Join(failed, os.RemoveAll(p.dir))
}
