package redistest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const orphanVariable = "REDISTEST_ORPHAN"

// TestOrphan is the test process that TestServerDiesWithTestProcess kills.
func TestOrphan(t *testing.T) {
	if os.Getenv(orphanVariable) == "" {
		return // runs only in the process of the test below
	}
	_, _ = fmt.Fprintln(os.Stdout, Start(t).Addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestServerDiesWithTestProcess(t *testing.T) {
	t.Parallel()
	Available(t)
	command := exec.Command(os.Args[0], "-test.run=^TestOrphan$")
	command.Env = append(os.Environ(), orphanVariable+"=1", "TMPDIR="+t.TempDir())
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = input.Close() }()
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, err := startProcess(command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.kill)
	addr, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)
	connection, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("the server should run: %v", err)
	}
	_ = connection.Close()

	started.kill()
	waitFor(t, "the server to die", nil, func() error {
		connection, err := net.Dial("tcp", addr)
		if err != nil {
			return nil //nolint:nilerr // refused is what we wait for
		}
		_ = connection.Close()
		return fmt.Errorf("%s still accepts", addr)
	})
}
