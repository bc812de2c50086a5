// Push shows what beequeue is made for. A chat API gets one message for a room
// of 50 members; the other 49 are to get it on their phones. The API saves 49
// jobs with one SaveAll and has answered within milliseconds. Workers send the
// pushes, through a gateway that fails now and then, slows them down, or knows
// that a phone is gone.
//
//	go run ./examples/push
//
// runs all of it in one process, on a Redis of its own: it sends one message
// through the API, and ends with a summary. There is nothing to set up. With
// -v it logs every job, with -redis URL it works on a server or cluster.
//
// Each side also runs by itself, as it would in production, any number of
// workers among them:
//
//	go run ./examples/push gateway
//	go run ./examples/push -redis redis://127.0.0.1:6379 worker
//	go run ./examples/push -redis redis://127.0.0.1:6379 api
//	curl -d '{"sender":"member-1","text":"hi"}' http://127.0.0.1:8080/rooms/lobby/messages
//
// The sides are in api.go, worker.go and gateway.go; demo.go runs them together.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/examples/internal/embedded"
)

// queueName is where the API and the workers meet.
const queueName = "push"

// Push is the data of a job: one message on its way to one device.
type Push struct {
	Device string `json:"device"`
	Text   string `json:"text"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("try -help")

// run is the program, from its arguments to its error.
func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	show := newConsole(out)
	switch o.mode {
	case "gateway":
		return runGateway(ctx, o, show)
	case "api", "worker":
		return runSide(ctx, o, show)
	}
	s, err := runDemo(ctx, o, show)
	show.clear()
	if s.saved > 0 {
		fmt.Fprint(out, s)
	}
	if err != nil {
		return err
	}
	return s.check()
}

// runSide runs the API or a worker, each with a queue of its own, until ctx ends.
func runSide(ctx context.Context, o options, show *console) error {
	client, stop, err := embedded.Open(ctx, o.redis)
	if err != nil {
		return err
	}
	defer stop()
	queue, err := beequeue.New(client, queueName, queueConfig())
	if err != nil {
		return err
	}
	if o.mode == "api" {
		err = runAPI(ctx, o, queue, show)
	} else {
		err = runWorker(ctx, o, queue, show)
	}
	return errors.Join(err, queue.Close(context.WithoutCancel(ctx)))
}

// queueConfig is the same on both sides.
func queueConfig() beequeue.Config {
	return beequeue.Config{
		// Nobody asks for the record of a push that was sent. Those that failed
		// stay, for somebody to look at.
		RemoveOnSuccess: true,
	}
}

// options are what the command line says.
type options struct {
	mode        string // empty: all sides in one process
	redis       string
	gateway     string
	listen      string
	members     int
	concurrency int
	seed        uint64
	verbose     bool
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("push", flag.ContinueOnError)
	flags.StringVar(&o.redis, "redis", "", "`URL` of a Redis server or cluster; default: one in this process")
	flags.StringVar(&o.gateway, "gateway", "", "`URL` of the push gateway; default: one in this process, for a worker "+defaultGateway)
	flags.StringVar(&o.listen, "listen", "", "`address` of the API or the gateway; default: any port, for api "+apiAddress+", for gateway "+gatewayAddress)
	flags.IntVar(&o.members, "members", 50, "`number` of members of the room")
	flags.IntVar(&o.concurrency, "concurrency", 10, "`number` of pushes a worker sends at once")
	flags.Uint64Var(&o.seed, "seed", 8, "seed of the gateway's failures: the same `number`, the same failures")
	flags.BoolVar(&o.verbose, "v", false, "log every job")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: push [flags] [api | worker | gateway]")
		flags.PrintDefaults()
	}
	// Flags may come before the side's name and after it.
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		o.mode = flags.Arg(0)
		err = flags.Parse(flags.Args()[1:])
	}
	if errors.Is(err, flag.ErrHelp) {
		return o, err
	}
	if err != nil {
		return o, errUsage // flags has said what is wrong
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("what is %q? %w", flags.Arg(0), errUsage)
	case o.members < 2:
		return o, fmt.Errorf("-members %d: a room has at least 2; %w", o.members, errUsage)
	case o.concurrency < 1:
		return o, fmt.Errorf("-concurrency %d: at least 1; %w", o.concurrency, errUsage)
	}
	switch o.mode {
	case "", "gateway":
	case "api", "worker":
		if o.redis == "" {
			return o, fmt.Errorf("%s needs -redis URL, to meet the other side; %w", o.mode, errUsage)
		}
	default:
		return o, fmt.Errorf("there is no side %q; %w", o.mode, errUsage)
	}
	return o, nil
}
