package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"strconv"
	"time"

	"github.com/gobeequeue/beequeue"
)

// server is the web side: each request becomes a job.
type server struct {
	queue *beequeue.Queue
	wait  time.Duration // for the worker's answer
	log   *log.Logger
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /primes", s.primes)
	return mux
}

// primes answers how many primes there are below a number.
func (s *server) primes(w http.ResponseWriter, r *http.Request) {
	below, err := strconv.ParseInt(r.FormValue("below"), 10, 64)
	if err != nil {
		http.Error(w, "below is not a number", http.StatusBadRequest)
		return
	}
	// Ends also when the client goes away.
	ctx, cancel := context.WithTimeout(r.Context(), s.wait)
	defer cancel()

	job := s.queue.CreateJob(Question{Below: below}).Timeout(s.wait)
	if err := job.Save(ctx); err != nil {
		s.log.Print(err)
		http.Error(w, "cannot take questions right now", http.StatusServiceUnavailable)
		return
	}
	// Nobody else asks for this job: when the request is over, so is the job,
	// with its record, be it finished, running or still waiting.
	defer s.remove(ctx, job)

	answer, err := beequeue.WaitFor[Answer](ctx, job)
	var failed *beequeue.FailedError
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the client may be gone
	case ctx.Err() != nil:
		http.Error(w, "no answer in time", http.StatusGatewayTimeout)
	case errors.As(err, &failed):
		http.Error(w, "the worker failed: "+failed.Message, http.StatusBadGateway)
	default:
		s.log.Print(err)
		http.Error(w, "cannot get the answer right now", http.StatusServiceUnavailable)
	}
}

// removeTimeout keeps a Redis that is away from holding up the response.
const removeTimeout = time.Second

func (s *server) remove(ctx context.Context, job *beequeue.Job) {
	// ctx may have ended, which is when there is most to remove.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if err := job.Remove(ctx); err != nil {
		s.log.Print(err)
	}
}
