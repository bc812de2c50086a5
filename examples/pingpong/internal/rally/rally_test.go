package rally

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/examples/internal/embedded"
	"github.com/gobeequeue/beequeue/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestPingDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := dial(t)
		err := Ping(t.Context(), client, 1, &bytes.Buffer{})
		require.ErrorContains(t, err, "is pong running?")
	})
}

// A ball may come back twice, and there may be balls of another game.
func TestPingKnowsItsBalls(t *testing.T) {
	t.Parallel()
	client := dial(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	there, back, err := open(ctx, client)
	require.NoError(t, err)
	ponged := make(chan error, 1)
	go func() {
		ponged <- there.Process(ctx, 1, beequeue.Typed(func(ctx context.Context, ball Ball) (any, error) {
			stray := Ball{Game: ball.Game + 1, Round: ball.Round}
			return nil, back.SaveAll(ctx, []*beequeue.Job{back.CreateJob(stray), back.CreateJob(ball), back.CreateJob(ball)})
		}))
	}()
	var out bytes.Buffer
	require.NoError(t, Ping(ctx, client, 3, &out))
	assert.Equal(t, 4, bytes.Count(out.Bytes(), []byte("\n")), out.String())
	stop()
	require.NoError(t, errors.Join(<-ponged, closeBoth(ctx, there, back)))
}

func dial(t *testing.T) rueidis.Client {
	t.Helper()
	client, stop, err := embedded.Open(t.Context(), "")
	require.NoError(t, err)
	t.Cleanup(stop)
	return client
}
