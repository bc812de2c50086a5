package beequeue

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue/internal/wire"
)

// Users see every event that can be decoded, whatever its data are.
func TestPublicEvents(t *testing.T) {
	t.Parallel()
	for _, name := range []string{eventSucceeded, eventRetrying, eventFailed, eventProgress, "odd"} {
		for data, text := range map[string]string{
			"": "", "null": "", `"broken"`: "broken", `"\ud800"`: "\ufffd", "{}": "{}", "[1]": "[1]", "-0": "-0",
		} {
			want := event{ID: "é1", Name: name}
			if data != "" {
				want.Data = json.RawMessage(data)
			}
			e, err := decodeEvent(wire.EncodeEvent(want.ID, name, want.Data))
			require.NoError(t, err, data)
			require.Equal(t, want, e)
			public := Event{Name: name, Data: want.Data}
			if name == eventFailed || name == eventRetrying {
				public = Event{Name: name, Err: &FailedError{ID: "é1", Message: text}}
			}
			require.Equal(t, public, e.public())
		}
	}
	_, err := decodeEvent(`{"id":"1"}`)
	require.EqualError(t, err, "no id or no event")
}

// The message of a failure is taken out of the stack that Node stored.
func TestMessageOf(t *testing.T) {
	t.Parallel()
	for stack, want := range map[string]string{
		"":                     "",
		"broken":               "broken",
		"two\nlines, no stack": "two\nlines, no stack",
		"Error: broken\n    at f (/a.js:1:2)\n    at g":         "broken",
		"TypeError: x is not\n    at f":                         "x is not",
		"Error: a: b\nc\n    at f":                              "a: b\nc",
		"Custom broken\n    at f":                               "Custom broken",
		"Error\n    at f":                                       "Error",
		"http: broken\n    at f":                                "http: broken",
		"panic: oh no\n\ngoroutine 7 [running]:\nmain.main()\n": "panic: oh no",
	} {
		require.Equal(t, want, messageOf(stack), stack)
	}
}

// A worker may hold a job under a new claim while an old one is still on its way back. A
// heartbeat that hears the old claim is no longer the worker's leaves the new run alone.
func TestHeartbeatTellsClaimsApart(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, DisableCache: true, AlwaysRESP2: true})
	require.NoError(t, err)
	defer client.Close()
	q, err := New(client, "q", Config{})
	require.NoError(t, err)
	w := newWorker(t.Context(), q, 1, nil, false)
	r := &run{id: "x", claim: "9", cancel: func(error) {}}
	other := &run{id: "y", claim: "9", cancel: func(error) {}}
	w.runs["x"], w.runs["y"], w.returning["x"] = r, other, "8"
	server.HSet("bq:{q}:owners", "x", w.token+"/9", "y", "somebody else/1")

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.beat(ctx)
	}()
	w.looked <- false
	require.Eventually(t, other.settled.Load, 30*time.Second, time.Millisecond, "the job that was lost")
	cancel()
	<-ended
	require.False(t, r.settled.Load(), "the run under the new claim")
}
