package records_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
)

// malformedRecords are records that no Bee-Queue writes, with the reason why they cannot be
// read.
var malformedRecords = map[string]struct{ record, reason string }{
	"no JSON":           {"nonsense", "record is not JSON"},
	"empty":             {"", "record is not JSON"},
	"cut off":           {`{"data":{"a":1},"opti`, "record is not JSON"},
	"two values":        {`{} {}`, "record is not JSON"},
	"no text":           {"\xff\xfe\x00", "record is not JSON"},
	"null":              {"null", "want an object, got null"},
	"array":             {"[1]", "record: want an object, got [1]"},
	"number":            {"7", "record: want an object, got 7"},
	"text":              {`"x"`, `record: want an object, got "x"`},
	"options array":     {`{"options":[]}`, "options: want an object, got []"},
	"options text":      {`{"options":"x"}`, `options: want an object, got "x"`},
	"retries text":      {`{"options":{"retries":"three"}}`, "options.retries: want a number"},
	"timeout object":    {`{"options":{"timeout":{}}}`, "options.timeout: want a number, got {}"},
	"timestamp true":    {`{"options":{"timestamp":true}}`, "options.timestamp: want a number, got true"},
	"number too large":  {`{"options":{"delay":1e999}}`, "options.delay: want a number"},
	"stacktraces text":  {`{"options":{"stacktraces":"x"}}`, `options.stacktraces: want an array, got "x"`},
	"backoff text":      {`{"options":{"backoff":"fixed"}}`, `options.backoff: want an object, got "fixed"`},
	"strategy number":   {`{"options":{"backoff":{"strategy":1}}}`, "backoff.strategy: want a string, got 1"},
	"backoff delay":     {`{"options":{"backoff":{"strategy":"fixed","delay":[1]}}}`, "backoff.delay: want a number"},
	"status number":     {`{"status":1}`, "status: want a string, got 1"},
	"too deep":          {`{"data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "exceeded max depth"},
	"deep in the wrong": {`{"options":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "options: want an object"},
}

// A job whose record cannot be read goes to failed with its bytes unchanged, and Wait gives
// the reason. The jobs around it run.
func TestMalformedRecords(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		var good []*beequeue.Job
		for id, c := range malformedRecords {
			good = append(good, f.Save("good"))
			f.Plant(id, c.record)
		}
		good = append(good, f.Save("last"))
		waiter := f.CreateJob(nil).SetID("null")
		ended := make(chan error, 1)
		go func() {
			_, err := waiter.Wait(context.Background())
			ended <- err
		}()
		f.Subscribed(1)
		queuetest.Drain(t, f.Queue, 3, queuetest.Succeed)

		for id, c := range malformedRecords {
			f.RequireState(id, beequeue.StateFailed)
			require.Equal(t, c.record, f.Record(id), "%s: the bytes changed", id)
			err := f.Catch(func(err error) bool { return strings.Contains(err.Error(), `run job "`+id+`"`) })
			var bad *beequeue.RecordError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, id, bad.ID)
			require.Contains(t, bad.Reason, c.reason, id)
			require.Less(t, len(bad.Reason), 300, "a reason does not repeat the record")

			_, err = f.CreateJob(nil).SetID(id).Wait(queuetest.Bounded(t))
			var failed *beequeue.FailedError
			require.ErrorAs(t, err, &failed, id)
			require.Contains(t, failed.Message, c.reason, id)
			_, err = f.GetJob(queuetest.Bounded(t), id)
			require.ErrorAs(t, err, &bad, id)
		}
		require.ErrorContains(t, queuetest.Receive(t, ended, "Wait"), "want an object, got null")
		for _, job := range good {
			f.RequireState(job.ID, beequeue.StateSucceeded)
		}

		// A job whose record was put right can be tried again. It can be removed, too.
		f.Must("HSET", "jobs", "null", `{"data":1}`)
		require.NoError(t, waiter.Retry(queuetest.Bounded(t)))
		require.NoError(t, f.RemoveJob(queuetest.Bounded(t), "array"))
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		f.RequireState("null", beequeue.StateSucceeded)
		require.NotContains(t, f.List("HKEYS", "reasons"), "array")
		_, err := waiter.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
	})
}

// Odd records that Bee-Queue would run are run.
func TestOddRecords(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		records := map[string]string{
			"empty object": `{}`,
			"nulls":        `{"data":null,"options":null,"status":null,"progress":null}`,
			"more nulls":   `{"options":{"timestamp":null,"stacktraces":null,"retries":null,"timeout":null,"delay":null,"backoff":null}}`,
			"white space":  " \n{ \"data\" : 1 }\t",
			"unknown":      `{"more":{"a":1},"options":{"priority":"high","timestamp":1}}`,
			"text":         `{"options":{"retries":"0","timeout":"1e3"}}`,
			"numbers":      `{"options":{"timestamp":1.5e3,"retries":-1,"timeout":1e300,"delay":-7.5}}`,
			"deep":         `{"data":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`,
			"duplicates":   `{"data":1,"data":2}`,
			"stacktraces":  `{"options":{"stacktraces":["a",{"b":1},null,3]}}`,
			"no text":      "{\"data\":\"\xff\"}",
		}
		for id, record := range records {
			f.Plant(id, record)
		}
		var mu sync.Mutex
		ran := make(map[string]string)
		queuetest.Drain(t, f.Queue, 2, func(_ context.Context, job *beequeue.Job) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			ran[job.ID] = string(job.Data)
			return nil, queuetest.ErrBroken
		})
		require.Len(t, ran, len(records))
		require.Equal(t, "{}", ran["empty object"])
		require.Equal(t, "2", ran["duplicates"])
		for id := range records {
			f.RequireState(id, beequeue.StateFailed)
			require.Equal(t, "broken", f.Lookup(id).Options.Stacktraces[0])
		}
		require.Contains(t, f.Record("unknown"), `"priority":"high"`, "options we do not know are kept")
		require.Equal(t, []string{"broken", "a", `{"b":1}`, "", "3"}, f.Lookup("stacktraces").Options.Stacktraces)
	})
}

// Ids without a record are dropped. An id that waits twice never runs twice at once. The jobs
// around them run.
func TestGhostsAndDuplicates(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		var good []string
		for i := range 20 {
			f.Must("LPUSH", "waiting", "ghost"+strconv.Itoa(i), "ghost"+strconv.Itoa(i))
			good = append(good, f.Save(i).ID)
		}
		twice := f.Save("twice", func(j *beequeue.Job) { j.SetID("twice") }).ID
		f.Must("LPUSH", "waiting", twice, twice)
		f.Must("RPUSH", "waiting", twice)
		var mu sync.Mutex
		now := make(map[string]int)
		queuetest.Drain(t, f.Queue, 5, func(ctx context.Context, job *beequeue.Job) (any, error) {
			mu.Lock()
			if now[job.ID]++; now[job.ID] > 1 {
				t.Errorf("job %q runs twice at once", job.ID)
			}
			mu.Unlock()
			// Two round trips, in which another slot could take the same id.
			for range 2 {
				if _, err := f.Counts(ctx); err != nil {
					return nil, err
				}
			}
			mu.Lock()
			now[job.ID]--
			mu.Unlock()
			return nil, nil
		})
		for _, id := range append(good, twice) {
			f.RequireState(id, beequeue.StateSucceeded)
		}
		require.Len(t, f.Places(), 21)
	})
}

// A second copy of an id that has already run does not put the job in two places.
func TestDuplicateOfAFinishedJob(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1)
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		f.Must("LPUSH", "waiting", job.ID)
		queuetest.Drain(t, f.Queue, 1, queuetest.Fail)
		require.Len(t, f.Places()[job.ID], 1, "it is in %v", f.Places()[job.ID])
		f.Must("LPUSH", "waiting", job.ID)
		queuetest.Drain(t, f.Queue, 1, queuetest.Succeed)
		require.Len(t, f.Places()[job.ID], 1, "it is in %v", f.Places()[job.ID])
	})
}

// Anybody may publish on the queue's channels. Messages that are no events are reported, and
// the events after them are heard.
func TestMalformedMessages(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		d := queuetest.NewDiary()
		d.Listen(f.Queue)
		r := queuetest.Process(t, f.Queue, 1, queuetest.Succeed)
		f.Subscribed(1)
		queuetest.Await(t, "the other subscription", func() bool { return f.Subscriptions("earlierDelayed") == 1 })
		check := func(channel, message string) {
			f.Must("PUBLISH", channel, message)
			err := f.Catch(queuetest.As[*beequeue.EventError])
			var e *beequeue.EventError
			require.ErrorAs(t, err, &e)
			require.Equal(t, f.KeyPrefix()+channel, e.Channel)
			require.Equal(t, message[:min(200, len(message))], e.Payload)
			require.NotEmpty(t, e.Reason)
		}
		for _, message := range []string{
			"", "nonsense", "null", "7", "[]", `"x"`, `{}`, `{"id":"1"}`, `{"event":"succeeded"}`, `{"id":"","event":"succeeded"}`,
			`{"id":null,"event":"succeeded"}`, `{"id":true,"event":"succeeded"}`, `{"id":["1"],"event":"succeeded"}`,
			`{"id":{},"event":"succeeded"}`, `{"id":"1","event":7}`, `{"id":"1","event":null}`, `{"id":"1","event":"succeeded"`,
			strings.Repeat("[", 20000), strings.Repeat("long ", 1000),
		} {
			check("events", message)
		}
		for _, message := range []string{"", "soon", "-1", "1e300", "{}", "NaN", "Inf", "-Inf", "12 13"} {
			check("earlierDelayed", message)
		}

		// Events with an unknown name or with odd data are no errors.
		for _, message := range []string{
			`{"id":"1","event":"exploded"}`, `{"id":5,"event":"succeeded"}`, `{"id":"a","event":"failed","data":{"x":1}}`,
			`{"id":"b","event":"failed"}`, `{"id":"c","event":"progress","data":null}`,
		} {
			f.Must("PUBLISH", "events", message)
		}
		f.Must("PUBLISH", "earlierDelayed", "1.5e3")
		require.Equal(t, []string{
			"succeeded 5 ", `failed a job "a" failed: {"x":1}`, `failed b job "b" failed: `, "progress c null",
		}, d.Await(t, 4))
		job := f.Save(1)
		_, err := job.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
		require.NoError(t, r.Stop())
	})
}

// A key of the wrong type is reported and does no harm. When it is put right, work goes on.
func TestKeyOfTheWrongType(t *testing.T) {
	t.Parallel()
	queuetest.Each(t, func(t *testing.T, s *queuetest.Server) {
		f := queuetest.Open(t, s, beequeue.Config{})
		job := f.Save(1)
		f.Must("SET", "succeeded", "not a set")
		retry := make(chan struct{}, 1)
		f.OnError(func(error) {
			select {
			case retry <- struct{}{}:
			default:
			}
		})
		f.Faulty = true // as often as it is tried
		r := queuetest.Process(t, f.Queue, 1, queuetest.Succeed)
		queuetest.Receive(t, retry, "OnError")
		f.Must("DEL", "succeeded")
		_, err := job.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
		require.NoError(t, r.Stop())
		f.RequireState(job.ID, beequeue.StateSucceeded)
	})
}
