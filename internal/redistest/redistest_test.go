package redistest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// verdict is a testing.TB that records how a test was ended.
type verdict struct {
	testing.TB
	skipped, failed bool
}

func (v *verdict) Helper() {}

func (v *verdict) Skipf(string, ...any) {
	v.skipped = true
	runtime.Goexit()
}

func (v *verdict) Fatalf(string, ...any) {
	v.failed = true
	runtime.Goexit()
}

func TestAvailable(t *testing.T) {
	for name, test := range map[string]struct {
		path, ci        string
		skipped, failed bool
	}{
		"missing":       {path: "-", skipped: true},
		"missing in CI": {path: "-", ci: "true", failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", test.path)
			t.Setenv("CI", test.ci)
			v := &verdict{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				Start(v)
			}()
			<-done
			if v.skipped != test.skipped || v.failed != test.failed {
				t.Errorf("skipped %v, failed %v", v.skipped, v.failed)
			}
		})
	}
}

func TestConfigText(t *testing.T) {
	got := configText([]string{"--port", "1", "--save", "", "--appendonly yes", "--name", `a "b\`})
	want := "port \"1\"\nsave \"\"\nappendonly yes\nname \"a \\\"b\\\\\"\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	server := Start(t, "--maxmemory-policy allkeys-lru", "--maxmemory", "100mb")
	server.Do(t, "SET", "k", "v")
	wantString(t, server, "v", "GET", "k")
	if message := server.Do(t, "GET", "missing"); !message.IsNil() {
		t.Errorf("a missing key gave %v", message)
	}
	for setting, want := range map[string]string{
		"bind": "127.0.0.1", "save": "", "maxmemory-policy": "allkeys-lru", "maxmemory": "104857600",
	} {
		message := server.Do(t, "CONFIG", "GET", setting)
		got, err := message.AsStrMap()
		if err != nil || got[setting] != want {
			t.Errorf("%s is %q (%v), want %q", setting, got[setting], err, want)
		}
	}
	client := dial(t, server.URL())
	if got, err := client.Do(t.Context(), client.B().Get().Key("k").Build()).ToString(); err != nil || got != "v" {
		t.Errorf("GET by URL: %q, %v", got, err)
	}
}

func TestStartFailsOnBadSetting(t *testing.T) {
	Available(t)
	t.Parallel()
	v := &verdict{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Start(v, "--no-such-setting", "1")
	}()
	<-done
	if !v.failed {
		t.Error("a setting that does not exist was accepted")
	}
}

func TestStartNoticesTakenPort(t *testing.T) {
	t.Parallel()
	first := Start(t)
	second := Start(t)
	second.Stop(t)
	second.Addr, second.Port, second.arguments = first.Addr, first.Port, first.arguments
	if err := second.launch(); !errors.Is(err, errPortTaken) {
		t.Errorf("launch on a taken port: %v", err)
	}
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		kept bool
	}{
		"in memory":   {},
		"append only": {args: []string{"--appendonly", "yes"}, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := Start(t, test.args...)
			server.Do(t, "SET", "k", "v")
			server.Kill()
			server.Kill() // nothing left to do
			if !portIsFree(server.Port) {
				t.Error("the port is in use after Kill")
			}
			if _, err := server.do("PING"); err == nil {
				t.Error("PING was answered after Kill")
			}
			server.Restart(t)
			if message := server.Do(t, "GET", "k"); message.IsNil() == test.kept {
				t.Errorf("after a restart: %v", message)
			}
		})
	}
}

func TestStopAndRestart(t *testing.T) {
	t.Parallel()
	server := Start(t, "--appendonly", "yes")
	server.Do(t, "CONFIG", "SET", "maxmemory", "100mb")
	server.Do(t, "CONFIG", "REWRITE")
	server.Do(t, "SET", "k", "v")
	server.Pause(t)
	server.Stop(t) // also when paused
	server.Stop(t) // nothing left to do
	if !strings.Contains(server.logTail(), "Redis is now ready to exit") {
		t.Errorf("no graceful shutdown in the log:\n%s", server.logTail())
	}
	server.Restart(t)
	wantString(t, server, "v", "GET", "k")
	server.Restart(t) // while it runs
	wantString(t, server, "v", "GET", "k")
	message := server.Do(t, "CONFIG", "GET", "maxmemory")
	if got, err := message.AsStrMap(); err != nil || got["maxmemory"] != "104857600" {
		t.Errorf("rewritten settings were lost: %v, %v", got, err)
	}
}

// A kill can cut a transaction short in the append-only file. The test cuts it there
// itself: a kill rarely hits the moment of a write.
func TestRestartAfterTornAppendOnlyFile(t *testing.T) {
	t.Parallel()
	server := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	script := []string{"EVAL", "redis.call('INCR', 'n') redis.call('RPUSH', 'list', 'x') redis.call('SET', 'k', 'v')", "0"}
	server.Do(t, script...)
	server.Kill()
	files, err := filepath.Glob(filepath.Join(server.dir, "appendonlydir", "*.incr.aof"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(server.dir, "appendonly.aof")) // before Redis 7
	info, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(files[0], info.Size()-20); err != nil { // within the SET
		t.Fatal(err)
	}
	server.Restart(t)
	if message := server.Do(t, "GET", "n"); !message.IsNil() {
		t.Fatalf("half a script was run: %v", message)
	}
	server.Do(t, script...)
	server.Kill()
	server.Restart(t)
	wantString(t, server, "1", "GET", "n")
	wantString(t, server, "1", "EVAL", "return tostring(redis.call('LLEN', 'list'))", "0")
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	server := Start(t)
	client := server.Client(t)
	get := func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		return client.Do(ctx, client.B().Ping().Build()).Error()
	}
	if err := get(commandTimeout); err != nil {
		t.Fatal(err)
	}
	server.Pause(t)
	if err := get(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("PING while paused: %v", err)
	}
	if _, err := server.do("PING"); err == nil {
		t.Error("do went to a paused server")
	}
	server.Resume(t)
	if err := get(commandTimeout); err != nil {
		t.Errorf("PING after Resume: %v", err)
	}
	server.Do(t, "PING")
}

func TestDropClients(t *testing.T) {
	t.Parallel()
	server := Start(t)
	client := server.Client(t)
	dedicated, release := client.Dedicate()
	defer release()
	broken := dedicated.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
	if err := dedicated.Do(t.Context(), dedicated.B().Subscribe().Channel("news").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 1)
	go func() {
		blocked <- client.Do(t.Context(), client.B().Blpop().Key("list").Timeout(0).Build()).Error()
	}()
	waitFor(t, "a blocked client", []*Server{server}, func() error {
		info, err := server.text("INFO", "clients")
		if err == nil && infoField(info, "blocked_clients") != "1" {
			err = errors.New("none is blocked")
		}
		return err
	})
	server.DropClients(t)
	for what, failed := range map[string]<-chan error{"subscriber": broken, "blocked client": blocked} {
		select {
		case err := <-failed:
			if err == nil {
				t.Errorf("the %s ended without an error", what)
			}
		case <-time.After(commandTimeout):
			t.Errorf("the %s was not cut", what)
		}
	}
	server.Do(t, "PING")
}

func dial(t *testing.T, url string) rueidis.Client {
	t.Helper()
	option, err := rueidis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func wantString(t *testing.T, server *Server, want string, command ...string) {
	t.Helper()
	message := server.Do(t, command...)
	if got, err := message.ToString(); err != nil || got != want {
		t.Errorf("%v: %q (%v), want %q", command, got, err, want)
	}
}
