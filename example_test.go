package beequeue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue"
)

// openRedis gives the examples a Redis of their own, in this process. A program
// has one line instead, Dial(ctx, "redis://127.0.0.1:6379").
func openRedis() (client rueidis.Client, stop func()) {
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	client, err = beequeue.Dial(context.Background(), "redis://"+server.Addr(), func(o *rueidis.ClientOption) {
		o.AlwaysRESP2, o.ForceSingleClient = true, true // what miniredis needs
	})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() {
		client.Close()
		server.Close()
	}
}

// Push is a message to deliver, Receipt says that it was.
type (
	Push    struct{ Target, Body string }
	Receipt struct{ ID string }
)

// A program that saves jobs and one that processes them, in one.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, stop := openRedis() // or beequeue.Dial(ctx, "redis://127.0.0.1:6379")
	defer stop()
	q, err := beequeue.New(client, "push", beequeue.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close(ctx)

	// In the API server:
	job := q.CreateJob(Push{Target: "mh", Body: "hi mh"}).
		Retries(3).Backoff(beequeue.Exponential, time.Second).Timeout(10 * time.Second)
	if err := job.Save(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("saved job", job.ID)

	// In a worker:
	err = q.Process(ctx, 50, func(_ context.Context, job *beequeue.Job) (any, error) {
		var p Push
		if err := job.Decode(&p); err != nil {
			return nil, err
		}
		fmt.Printf("to %s: %s\n", p.Target, p.Body)
		cancel() // ends Process, once this handler has returned
		return nil, nil
	})
	fmt.Println("processed:", err)
	// Output:
	// saved job 1
	// to mh: hi mh
	// processed: <nil>
}

func ExampleQueue_SaveAll() {
	ctx := context.Background()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "push", beequeue.Config{})
	defer q.Close(ctx)

	jobs := []*beequeue.Job{
		q.CreateJob("good morning"),
		q.CreateJob("good night").DelayUntil(time.Now().Add(12 * time.Hour)),
		q.CreateJob("nobody waits so short").Timeout(-time.Second),
	}
	err := q.SaveAll(ctx, jobs)
	var some *beequeue.SaveAllError
	if errors.As(err, &some) {
		for job, err := range some.Errors {
			fmt.Printf("%s: %v\n", job.Data, err)
		}
	}
	fmt.Println("ids:", jobs[0].ID, jobs[1].ID)
	// Output:
	// "nobody waits so short": Timeout: -1s is negative
	// ids: 1 2
}

// An id makes a job unique: it is enqueued once, however often it is saved.
func ExampleJob_SetID() {
	ctx := context.Background()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "push", beequeue.Config{})
	defer q.Close(ctx)

	for range 2 {
		err := q.CreateJob("your order has arrived").SetID("order 1234").Save(ctx)
		switch {
		case errors.Is(err, beequeue.ErrDuplicateID):
			fmt.Println("is saved already")
		case err == nil:
			fmt.Println("saved")
		}
	}
	// Output:
	// saved
	// is saved already
}

func ExampleJob_Wait() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "greet", beequeue.Config{})
	defer q.Close(ctx)
	go q.Process(ctx, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == `""` {
			return nil, errors.New("who?")
		}
		return "hello " + string(job.Data), nil
	})

	for _, name := range []string{"mh", ""} {
		job := q.CreateJob(name)
		if err := job.Save(ctx); err != nil {
			log.Fatal(err)
		}
		result, err := job.Wait(ctx)
		var failed *beequeue.FailedError
		if errors.As(err, &failed) {
			fmt.Println("failed:", failed.Message)
			continue
		}
		fmt.Printf("succeeded: %s\n", result)
	}
	// Output:
	// succeeded: "hello \"mh\""
	// failed: who?
}

// With types of your own on both sides.
func ExampleWaitFor() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "push", beequeue.Config{})
	defer q.Close(ctx)
	go q.Process(ctx, 1, beequeue.Typed(func(_ context.Context, p Push) (Receipt, error) {
		return Receipt{ID: "r-" + p.Target}, nil
	}))

	job := q.CreateJob(Push{Target: "mh", Body: "hi"})
	if err := job.Save(ctx); err != nil {
		log.Fatal(err)
	}
	receipt, err := beequeue.WaitFor[Receipt](ctx, job)
	fmt.Println(receipt.ID, err)
	// Output: r-mh <nil>
}

// Data that does not fit the type fails its job at once, whatever its retries.
func ExampleTyped() {
	ctx := context.Background()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "push", beequeue.Config{})
	defer q.Close(ctx)
	q.OnFailedForGood(func(job *beequeue.Job, err error) {
		fmt.Printf("%s: %v\n", job.Data, errors.Is(err, beequeue.ErrNoRetry))
	})

	_ = q.SaveAll(ctx, []*beequeue.Job{
		q.CreateJob(Push{Target: "mh"}),
		q.CreateJob("no struct").Retries(3),
	})
	_ = q.Drain(ctx, 1, beequeue.Typed(func(_ context.Context, p Push) (Receipt, error) {
		fmt.Println("to", p.Target)
		return Receipt{}, nil
	}))
	// Output:
	// to mh
	// "no struct": true
}

// Drain does what there is to do, and returns.
func ExampleQueue_Drain() {
	ctx := context.Background()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "count", beequeue.Config{})
	defer q.Close(ctx)

	for i := range 3 {
		_ = q.CreateJob(i).Retries(1).Save(ctx)
	}
	err := q.Drain(ctx, 1, func(_ context.Context, job *beequeue.Job) (any, error) {
		if string(job.Data) == "1" && job.Options.Retries > 0 {
			fmt.Println(job.ID, "fails and is tried again")
			return nil, errors.New("not yet")
		}
		fmt.Println(job.ID, "succeeds")
		return nil, nil
	})
	fmt.Println("drained:", err)
	// Output:
	// 1 succeeds
	// 2 fails and is tried again
	// 3 succeeds
	// 2 succeeds
	// drained: <nil>
}

// Watch hears of a job's progress while it waits for its end.
func ExampleJob_Watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "render", beequeue.Config{})
	defer q.Close(ctx)
	go q.Process(ctx, 1, func(ctx context.Context, job *beequeue.Job) (any, error) {
		for _, percent := range []int{50, 100} {
			if err := job.ReportProgress(ctx, percent); err != nil {
				return nil, err
			}
		}
		return "film.mp4", nil
	})

	job := q.CreateJob("a film")
	if err := job.Save(ctx); err != nil {
		log.Fatal(err)
	}
	percent, last := 0, ""
	result, err := job.Watch(ctx, func(e beequeue.Event) {
		if e.Name == "progress" { // some may have been sent before we listened
			_ = json.Unmarshal(e.Data, &percent)
		}
		last = e.Name
	})
	fmt.Println(last, string(result), err)
	// Output: succeeded "film.mp4" <nil>
}

// A look at what waits.
func ExampleQueue_GetJobs() {
	ctx := context.Background()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "push", beequeue.Config{})
	defer q.Close(ctx)
	for _, name := range []string{"ann", "bob", "cid"} {
		_ = q.CreateJob(Push{Target: name}).Save(ctx)
	}

	jobs, err := q.GetJobs(ctx, beequeue.StateWaiting, beequeue.Page{Size: 2})
	if err != nil {
		log.Fatal(err)
	}
	for _, job := range jobs { // the newest first
		fmt.Printf("%s %s %s\n", job.ID, job.Status, job.Data)
	}
	// Output:
	// 3 created {"Target":"cid","Body":""}
	// 2 created {"Target":"bob","Body":""}
}

func ExampleQueue_Counts() {
	ctx := context.Background()
	client, stop := openRedis()
	defer stop()
	q, _ := beequeue.New(client, "push", beequeue.Config{})
	defer q.Close(ctx)
	_ = q.CreateJob(1).Save(ctx)
	_ = q.Drain(ctx, 1, func(context.Context, *beequeue.Job) (any, error) { return nil, nil })
	_ = q.CreateJob(2).Save(ctx)
	_ = q.CreateJob(3).DelayUntil(time.Now().Add(time.Hour)).Save(ctx)

	counts, err := q.Counts(ctx)
	fmt.Printf("%+v %v\n", counts, err)
	// Output: {Waiting:1 Active:0 Delayed:1 Succeeded:1 Failed:0 NewestJob:3} <nil>
}
