package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A library is what is tested.
type library struct {
	name     string
	command  func() *exec.Cmd // of a producer or worker, but for the order
	layout   layout
	patience time.Duration // how long nothing may happen before a wait is given up
	lacks    need          // what it cannot do
	missing  string        // why it cannot be run here
}

const ours = "beequeue"

// libraries builds those that are written in Go, into a folder.
func libraries(ctx context.Context, source, into string) ([]*library, error) {
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", into+string(filepath.Separator), "./actors/...")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the producers and workers: %w\n%s", err, out)
	}
	binary := func(name string) func() *exec.Cmd {
		return func() *exec.Cmd { return exec.Command(filepath.Join(into, name)) }
	}
	node := &library{
		name: "bee-queue", layout: beeQueueLayout, patience: 40 * time.Second,
		lacks:   need{cluster: true, sentinel: true, replicas: true},
		command: func() *exec.Cmd { return exec.Command("node", filepath.Join(source, "node", "actor.js")) },
	}
	if _, err := exec.LookPath("node"); err != nil {
		node.missing = "no node on the PATH"
	} else if _, err := os.Stat(filepath.Join(source, "node", "node_modules")); err != nil {
		node.missing = "npm ci was not run in chaos/node"
	}
	return []*library{
		{name: ours, command: binary(ours), layout: beeQueueLayout, patience: time.Minute},
		node,
		{
			name: "asynq", command: binary("asynq"), layout: asynqLayout, patience: 150 * time.Second,
			lacks: need{beeQueueFormat: true, replicas: true},
		},
	}, nil
}

// cannot says why a library cannot take part in a scenario.
func (l *library) cannot(n need) string {
	switch {
	case l.missing != "":
		return l.missing
	case n.cluster && l.lacks.cluster:
		return "does not run on a cluster"
	case n.sentinel && l.lacks.sentinel:
		return "does not know Sentinel"
	case n.beeQueueFormat && l.lacks.beeQueueFormat:
		return "has another format"
	case n.replicas && l.lacks.replicas:
		return "has no such setting"
	}
	return ""
}
