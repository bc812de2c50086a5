package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/examples/internal/web"
)

const (
	apiAddress = "127.0.0.1:8080"
	roomName   = "lobby"
)

// chat is the API. Its only route takes a message for a room.
type chat struct {
	queue *beequeue.Queue
	rooms map[string][]string // room -> members
	show  *console
	// saveTimeout is how long a request may wait for a Redis that is away.
	saveTimeout time.Duration
}

func newChat(queue *beequeue.Queue, members int, show *console) *chat {
	room := make([]string, members)
	for i := range room {
		room[i] = fmt.Sprintf("member-%d", i+1)
	}
	queue.OnReady(func() { show.logf("api: ready, redis answers") })
	queue.OnError(func(err error) { show.logf("api: error: %v", err) })
	return &chat{
		queue:       queue,
		rooms:       map[string][]string{roomName: room},
		show:        show,
		saveTimeout: 3 * time.Second,
	}
}

// runAPI serves the API at its address until ctx ends.
func runAPI(ctx context.Context, o options, queue *beequeue.Queue, show *console) error {
	address := o.listen
	if address == "" {
		address = apiAddress
	}
	listener, err := web.Listen(ctx, address)
	if err != nil {
		return err
	}
	show.logf(`api: try curl -d '{"sender":"member-1","text":"hi"}' %s`, messagesURL(listener))
	return newChat(queue, o.members, show).run(ctx, listener)
}

// messagesURL is where to post messages.
func messagesURL(listener net.Listener) string {
	return fmt.Sprintf("http://%s/rooms/%s/messages", listener.Addr(), roomName)
}

// run answers requests until ctx ends.
func (c *chat) run(ctx context.Context, listener net.Listener) error {
	if err := c.queue.Ready(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	return web.Serve(ctx, listener, c.handler())
}

func (c *chat) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rooms/{room}/messages", c.postMessage)
	return mux
}

// message is what a client posts.
type message struct {
	Sender string `json:"sender"`
	Text   string `json:"text"`
}

// accepted is the answer: the message's pushes are saved, and will be sent.
type accepted struct {
	Jobs int `json:"jobs"`
}

func (c *chat) postMessage(w http.ResponseWriter, r *http.Request) {
	members, found := c.rooms[r.PathValue("room")]
	if !found {
		http.Error(w, "there is no such room", http.StatusNotFound)
		return
	}
	var m message
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&m); err != nil {
		http.Error(w, "the message is not JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	if m.Text == "" {
		http.Error(w, "the message has no text", http.StatusBadRequest)
		return
	}
	if !slices.Contains(members, m.Sender) {
		http.Error(w, "the sender is not in the room", http.StatusForbidden)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.saveTimeout)
	defer cancel()
	jobs, err := c.savePushes(ctx, members, m)
	if err != nil {
		c.show.logf("api: error: %v", err)
		w.Header().Set("Retry-After", "1")
		// "May": if only Redis's reply was lost, some jobs may be saved all the
		// same, and whoever tries again pushes twice. Where that is too often,
		// Job.SetID gives each push an id that can be saved only once.
		http.Error(w, "the message may not have been sent, try again later", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(accepted{Jobs: jobs}) // a client that is gone has its pushes saved
}

// savePushes saves one job for each member but the sender, all in one call.
func (c *chat) savePushes(ctx context.Context, members []string, m message) (int, error) {
	start := time.Now()
	var jobs []*beequeue.Job
	for _, member := range members {
		if member == m.Sender {
			continue
		}
		push := Push{Device: "phone-of-" + member, Text: m.Sender + ": " + m.Text}
		jobs = append(jobs, c.queue.CreateJob(push).
			Retries(5).
			Backoff(beequeue.Exponential, 100*time.Millisecond). // 100 ms, 200, 400, ...
			Timeout(5*time.Second))
	}
	if err := c.queue.SaveAll(ctx, jobs); err != nil {
		return 0, err
	}
	c.show.logf("api: saved %d jobs with one SaveAll in %v", len(jobs), time.Since(start).Round(100*time.Microsecond))
	return len(jobs), nil
}
