package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestRunByItself(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-rounds", "5"}, &out))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 6, out.String())
	assert.Contains(t, lines[0], "round   1  ")
	assert.Contains(t, lines[5], "5 rounds: fastest ")
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	out := writerFunc(func() { stop() }) // after the first round
	require.ErrorIs(t, run(ctx, nil, out), context.Canceled)
}

func TestNoRounds(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, run(t.Context(), []string{"-rounds", "0"}, &bytes.Buffer{}), "no game")
}

type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}
