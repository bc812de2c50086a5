package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/gobeequeue/beequeue/examples/internal/web"
)

const (
	gatewayAddress = "127.0.0.1:8081"
	defaultGateway = "http://" + gatewayAddress
	deadDevice     = "phone-of-member-7"
)

// gateway stands in for Apple's or Google's: it takes a while, it fails now and
// then, it limits the rate, and it knows one device that is gone.
type gateway struct {
	seed uint64

	mu      sync.Mutex
	devices map[string]*rand.Rand
}

func newGateway(seed uint64) *gateway {
	return &gateway{seed: seed, devices: make(map[string]*rand.Rand)}
}

// runGateway serves a gateway at its address until ctx ends.
func runGateway(ctx context.Context, o options, show *console) error {
	address := o.listen
	if address == "" {
		address = gatewayAddress
	}
	listener, err := web.Listen(ctx, address)
	if err != nil {
		return err
	}
	show.logf("gateway: ready on http://%s", listener.Addr())
	return web.Serve(ctx, listener, newGateway(o.seed))
}

// Receipt is the gateway's word that a push is on its way.
type Receipt struct {
	ID string `json:"id"`
}

// ServeHTTP takes one push.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var push Push
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&push); err != nil {
		http.Error(w, "not a push: "+err.Error(), http.StatusBadRequest)
		return
	}
	luck, id := g.draw(push.Device)
	took := time.NewTimer(time.Duration(20+luck/2) * time.Millisecond)
	defer took.Stop()
	select {
	case <-took.C:
	case <-r.Context().Done():
		return
	}
	switch {
	case push.Device == deadDevice:
		http.Error(w, "the device has left", http.StatusGone)
	case luck < 15:
		http.Error(w, "something went wrong", http.StatusInternalServerError)
	case luck < 22:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Receipt{ID: fmt.Sprintf("%08x", id)}) // a worker that is gone tries again
	}
}

// draw gives luck from 0 to 99 and an id for a receipt. Each device has its own
// dice, so that it meets the same fate whatever order the pushes come in.
func (g *gateway) draw(device string) (luck int, id uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	dice := g.devices[device]
	if dice == nil {
		hash := fnv.New64a()
		hash.Write([]byte(device))
		dice = rand.New(rand.NewPCG(g.seed, hash.Sum64()))
		g.devices[device] = dice
	}
	return dice.IntN(100), dice.Uint32()
}
