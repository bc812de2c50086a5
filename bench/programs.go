package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programs are the peers' executables. A measurement runs in a process of its own
// that links the peer's library and no other, so that CPU and memory are the
// peer's alone.
type programs struct {
	source string // bench/
	built  string // where the peers in Go are
}

// inNode are the peers of node/peer.js.
var inNode = map[string]bool{beeQueue: true, minimal: true, bullMQ: true}

// program is what a peer in Go is called under peers/.
func program(peer string) string { return strings.ToLower(peer) }

// build compiles those of the peers that are written in Go.
func build(ctx context.Context, source, into string, peers []string) (programs, error) {
	arguments := []string{"build", "-buildvcs=false", "-o", into + string(filepath.Separator)}
	for _, peer := range peers {
		if !inNode[peer] {
			arguments = append(arguments, "./peers/"+program(peer))
		}
	}
	p := programs{source, into}
	if len(arguments) == 4 {
		return p, nil
	}
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = source
	if out, err := command.CombinedOutput(); err != nil {
		return p, fmt.Errorf("build the peers: %w\n%s", err, out)
	}
	return p, nil
}

// missing says why a peer cannot be run, if so.
func (p programs) missing(peer string) string {
	if !inNode[peer] {
		return ""
	}
	if _, err := exec.LookPath("node"); err != nil {
		return "no node on the PATH"
	}
	if _, err := os.Stat(filepath.Join(p.source, "node", "node_modules")); err != nil {
		return "npm ci was not run in bench/node"
	}
	return ""
}

func (p programs) command(ctx context.Context, peer string) *exec.Cmd {
	if inNode[peer] {
		command := exec.CommandContext(ctx, "node", filepath.Join(p.source, "node", "peer.js"))
		command.Env = append(os.Environ(), "NODE_ENV=production")
		return command
	}
	return exec.CommandContext(ctx, filepath.Join(p.built, program(peer)))
}
