package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

const (
	startAttempts = 5
	configFile    = "redis.conf"
	logFile       = "redis.log"
)

var errPortTaken = errors.New("its port was taken")

// Server is one redis-server process. It keeps its port and directory when it is
// killed and restarted.
type Server struct {
	Addr string // host:port
	Port int

	dir       string
	arguments []string    // of the command line
	secure    *tls.Config // to connect with; nil without TLS

	mu      sync.Mutex
	process *process
	paused  bool
	client  rueidis.Client // for do; nil until needed and after an error
}

// Start starts one server and waits until it answers. It has no persistence
// unless args say so; args are written as on the command line of redis-server:
// "--appendonly", "yes" or "--appendonly yes".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, nil, nil, append(defaults(), args...))
}

func defaults() []string {
	return []string{
		"--save", "",
		"--repl-diskless-sync-delay", "0", // a new replica need not wait 5 s for others
	}
}

// start starts redis-server with flags on its command line and settings, written
// like arguments, in its config file. The file lets Redis keep what Sentinel
// tells it (CONFIG REWRITE) over a restart.
func start(tb testing.TB, secure *tls.Config, flags, settings []string) *Server {
	tb.Helper()
	Available(tb)
	for range startAttempts {
		port := freePort(tb)
		s := &Server{Addr: address(port), Port: port, dir: tb.TempDir(), secure: secure}
		config := filepath.Join(s.dir, configFile)
		own := []string{"--port", strconv.Itoa(port), "--bind", host, "--dir", s.dir}
		if secure != nil {
			own = append([]string{"--port", "0", "--tls-port"}, own[1:]...)
		}
		if err := os.WriteFile(config, []byte(configText(append(own, settings...))), 0o600); err != nil {
			tb.Fatalf("redistest: %v", err)
		}
		s.arguments = append([]string{config}, flags...)
		tb.Cleanup(s.Kill)
		err := s.launch()
		if err == nil {
			return s
		}
		if errors.Is(err, errNoTLS) {
			unavailable(tb, "a redis-server with TLS", err)
		}
		if !errors.Is(err, errPortTaken) {
			tb.Fatalf("redistest: start redis-server: %v%s", err, logTails([]*Server{s}))
		}
	}
	tb.Fatalf("redistest: start redis-server: ports were taken %d times", startAttempts)
	return nil
}

// configText turns command line arguments into lines of a config file.
func configText(args []string) string {
	var lines strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for i, arg := range args {
		if name, ok := strings.CutPrefix(arg, "--"); ok {
			if i > 0 {
				lines.WriteByte('\n')
			}
			lines.WriteString(name)
		} else {
			fmt.Fprintf(&lines, ` "%s"`, escape.Replace(arg))
		}
	}
	lines.WriteByte('\n')
	return lines.String()
}

// launch starts the process and waits until it answers PING, which it does not
// do while it loads its data. It kills the process when it fails.
func (s *Server) launch() error {
	output, err := os.OpenFile(filepath.Join(s.dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	command := exec.Command("redis-server", s.arguments...)
	command.Dir = s.dir
	command.Stdout = output
	command.Stderr = output
	started, err := startProcess(command)
	_ = output.Close() // the process has its own handle
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process, s.paused = started, false
	s.mu.Unlock()

	deadline := time.NewTimer(waitTimeout)
	defer deadline.Stop()
	ticker := time.NewTicker(waitInterval)
	defer ticker.Stop()
	for {
		err := s.ready(started.pid())
		if err == nil {
			return nil
		}
		select {
		case <-started.exited:
			s.Kill() // forgets the process
			if strings.Contains(s.logTail(), "Address already in use") {
				return errPortTaken
			}
			if s.lacksTLS() {
				return errNoTLS
			}
			return errors.New("it ended at once")
		case <-deadline.C:
			s.Kill()
			return fmt.Errorf("no answer in %v: %w", waitTimeout, err)
		case <-ticker.C:
		}
	}
}

// ready checks the process ID too: when the port was taken, the server that
// answers is another one.
func (s *Server) ready(pid int) error {
	info, err := s.do("INFO", "server")
	if err != nil {
		return err
	}
	text, err := info.ToString()
	if err != nil {
		return err
	}
	if got := infoField(text, "process_id"); got != strconv.Itoa(pid) {
		return fmt.Errorf("process %s answers instead of %d", got, pid)
	}
	_, err = s.do("PING")
	return err
}

// URL returns the server's address in the form that rueidis.ParseURL reads.
func (s *Server) URL() string {
	if s.secure != nil {
		return "rediss://" + s.Addr
	}
	return "redis://" + s.Addr
}

// Client returns a lean client of this one server, also when it is a node of a
// cluster. It speaks RESP2, retries nothing and is closed when the test ends.
func (s *Server) Client(tb testing.TB) rueidis.Client {
	tb.Helper()
	client, err := newClient(s.Addr, s.secure)
	if err != nil {
		tb.Fatalf("redistest: connect to %s: %v%s", s.Addr, err, logTails([]*Server{s}))
	}
	tb.Cleanup(client.Close)
	return client
}

// Do runs one command that does not block. It ends the test if the command fails;
// a nil reply is no failure: see IsNil of the message.
func (s *Server) Do(tb testing.TB, command ...string) rueidis.RedisMessage {
	tb.Helper()
	message, err := s.do(command...)
	if err != nil {
		tb.Fatalf("redistest: %s at %s: %v%s", strings.Join(command, " "), s.Addr, err, logTails([]*Server{s}))
	}
	return message
}

func (s *Server) do(command ...string) (rueidis.RedisMessage, error) {
	client, err := s.control()
	if err != nil {
		return rueidis.RedisMessage{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	message, err := client.Do(ctx, client.B().Arbitrary(command...).Build()).ToMessage()
	if err == nil || rueidis.IsRedisNil(err) {
		return message, nil
	}
	if _, fromRedis := rueidis.IsRedisErr(err); !fromRedis {
		s.forget(client)
	}
	return rueidis.RedisMessage{}, err
}

// text is do for a command that answers with a string.
func (s *Server) text(command ...string) (string, error) {
	message, err := s.do(command...)
	if err != nil {
		return "", err
	}
	return message.ToString()
}

// number is do for a command that answers with an integer.
func (s *Server) number(command ...string) (int64, error) {
	message, err := s.do(command...)
	if err != nil {
		return 0, err
	}
	return message.AsInt64()
}

// control returns the client of do.
func (s *Server) control() (rueidis.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil || !s.process.running() {
		return nil, fmt.Errorf("%s does not run", s.Addr)
	}
	if s.paused {
		return nil, fmt.Errorf("%s is paused", s.Addr)
	}
	if s.client != nil {
		return s.client, nil
	}
	client, err := newClient(s.Addr, s.secure)
	if err != nil {
		return nil, err
	}
	s.client = client
	return client, nil
}

// forget makes the next do connect anew.
func (s *Server) forget(client rueidis.Client) {
	s.mu.Lock()
	if s.client == client {
		s.client = nil
	}
	s.mu.Unlock()
	client.Close()
}

func newClient(addr string, secure *tls.Config) (rueidis.Client, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:         []string{addr},
		TLSConfig:           secure,
		ForceSingleClient:   true,
		DisableCache:        true,
		AlwaysRESP2:         true, // under RESP3 the text of INFO starts with "txt:"
		DisableRetry:        true,
		ClientSetInfo:       rueidis.DisableClientSetInfo,
		Dialer:              net.Dialer{Timeout: commandTimeout},
		PipelineMultiplex:   -1, // one connection
		RingScaleEachConn:   6,
		ReadBufferEachConn:  16 << 10,
		WriteBufferEachConn: 16 << 10,
	})
	if err != nil && client != nil {
		client.Close() // a single client comes with its error
	}
	return client, err
}

// running tells whether the server can answer: not killed, stopped or paused.
func (s *Server) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process != nil && s.process.running() && !s.paused
}

// Kill kills the server with SIGKILL and waits until it is gone. It does nothing
// to a server that does not run.
func (s *Server) Kill() {
	s.end(func(p *process) { p.kill() })
}

// Stop lets the server shut down by itself (SIGTERM) and waits until it is gone.
// It does nothing to a server that does not run.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	s.end(func(p *process) {
		// Signals fail only when the process has ended; one that is paused
		// would not see SIGTERM.
		_ = resumeProcess(p.command.Process)
		_ = p.command.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(waitTimeout):
			p.kill()
			tb.Errorf("redistest: %s did not shut down in %v%s", s.Addr, waitTimeout, logTails([]*Server{s}))
		}
	})
}

func (s *Server) end(by func(*process)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
	if s.process != nil {
		by(s.process)
		s.process = nil
	}
}

// Restart starts the server again with the same port, directory and settings, and
// waits until it answers and has loaded its data. A server that still runs is
// stopped first. If the server was killed in the middle of writing its append-only
// file, Restart has it write a new one, see mendAppendOnly.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop(tb)
	logged := len(s.log())
	waitFor(tb, "the port of "+s.Addr, []*Server{s}, func() error {
		err := s.launch()
		if err != nil && !errors.Is(err, errPortTaken) {
			tb.Fatalf("redistest: restart %s: %v%s", s.Addr, err, logTails([]*Server{s}))
		}
		return err
	})
	if strings.Contains(s.log()[logged:], "Truncating the AOF") {
		s.mendAppendOnly(tb)
	}
}

// mendAppendOnly has the server write its append-only file anew. A transaction that a
// kill cut short is not run when the server loads the file. But redis-server (7.0 and
// later, at least) cuts the file behind the last whole command of that transaction, not
// before its MULTI, and appends to it. The next start then runs those commands together
// with the transaction that follows. A second kill would bring half a script back.
func (s *Server) mendAppendOnly(tb testing.TB) {
	tb.Helper()
	s.Do(tb, "BGREWRITEAOF")
	waitFor(tb, "a new append-only file", []*Server{s}, func() error {
		info, err := s.text("INFO", "persistence")
		if err != nil {
			return err
		}
		for name, want := range map[string]string{
			"aof_rewrite_in_progress": "0", "aof_rewrite_scheduled": "0", "aof_last_bgrewrite_status": "ok",
		} {
			if got := infoField(info, name); got != want {
				return fmt.Errorf("%s is %q", name, got)
			}
		}
		return nil
	})
}

// Pause freezes the server (SIGSTOP): connections stay open and nothing answers.
// It cannot be had on Windows.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	s.setPaused(tb, true, pauseProcess)
}

// Resume lets a paused server go on (SIGCONT).
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	s.setPaused(tb, false, resumeProcess)
}

func (s *Server) setPaused(tb testing.TB, paused bool, signal func(*os.Process) error) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		tb.Fatalf("redistest: pause or resume %s: it does not run", s.Addr)
	}
	if err := signal(s.process.command.Process); err != nil {
		tb.Fatalf("redistest: pause or resume %s: %v", s.Addr, err)
	}
	s.paused = paused
}

// DropClients cuts every client's connection, subscribers included.
func (s *Server) DropClients(tb testing.TB) {
	tb.Helper()
	s.Do(tb, "CLIENT", "KILL", "TYPE", "normal")
	s.Do(tb, "CLIENT", "KILL", "TYPE", "pubsub")
}

// logTail returns the last lines of the server's log.
func (s *Server) logTail() string {
	const lines = 25
	all := strings.SplitAfter(s.log(), "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}

// log returns what the server has logged so far.
func (s *Server) log() string {
	text, err := os.ReadFile(filepath.Join(s.dir, logFile))
	if err != nil {
		return err.Error() + "\n"
	}
	return string(text)
}

// infoField returns the value of a line "name:value", as INFO and CLUSTER INFO
// write them.
func infoField(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && key == name {
			return value
		}
	}
	return ""
}
