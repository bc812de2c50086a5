package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/gobeequeue/beequeue/internal/redistest"
)

// usage is what a measurement reads off the servers before and after.
type usage struct {
	cpu      float64 // seconds
	commands float64 // also those inside scripts
	bytes    float64 // in and out
}

func (u usage) less(v usage) usage {
	return usage{u.cpu - v.cpu, u.commands - v.commands, u.bytes - v.bytes}
}

// storage is where a peer keeps its jobs.
type storage interface {
	url() string
	clear(ctx context.Context) error
	usage(ctx context.Context) (usage, error)
}

// redisStore is one redis-server, or the masters of a cluster.
type redisStore struct {
	servers []*redistest.Server
	clients []rueidis.Client
}

func startRedis(tb testing.TB) *redisStore {
	tb.Helper()
	server := redistest.Start(tb)
	return &redisStore{[]*redistest.Server{server}, []rueidis.Client{server.Client(tb)}}
}

// startRedisCluster starts three masters, without replicas.
func startRedisCluster(tb testing.TB) *redisStore {
	tb.Helper()
	const masters, slots = 3, 16384
	r := &redisStore{}
	for i := range masters {
		server := redistest.Start(tb, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
		server.Do(tb, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		server.Do(tb, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/masters), strconv.Itoa((i+1)*slots/masters-1))
		for _, other := range r.servers {
			server.Do(tb, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.Port))
		}
		r.servers = append(r.servers, server)
		r.clients = append(r.clients, server.Client(tb))
	}
	deadline := time.Now().Add(time.Minute)
	for _, server := range r.servers {
		for {
			message := server.Do(tb, "CLUSTER", "INFO")
			info, err := message.ToString()
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") {
				break
			}
			if time.Now().After(deadline) {
				tb.Fatalf("the cluster did not form: %s", info)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return r
}

func (r *redisStore) url() string {
	url := r.servers[0].URL()
	for i, server := range r.servers[1:] {
		url += string("?&"[min(i, 1)]) + "addr=" + server.Addr
	}
	return url
}

func (r *redisStore) clear(ctx context.Context) error {
	for _, c := range r.clients {
		if err := c.Do(ctx, c.B().Flushall().Sync().Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

func (r *redisStore) usage(ctx context.Context) (usage, error) {
	var u usage
	for _, c := range r.clients {
		cpu, err := c.Do(ctx, c.B().Info().Section("cpu", "stats", "commandstats").Build()).ToString()
		if err != nil {
			return u, err
		}
		for line := range strings.Lines(cpu) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			switch {
			case name == "used_cpu_user", name == "used_cpu_sys":
				u.cpu += number(value)
			case name == "total_net_input_bytes", name == "total_net_output_bytes":
				u.bytes += number(value)
			case strings.HasPrefix(name, "cmdstat_") && name != "cmdstat_info":
				calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
				u.commands += number(calls)
			}
		}
	}
	return u, nil
}

func number(text string) float64 {
	n, _ := strconv.ParseFloat(text, 64) // Redis writes numbers there
	return n
}

// connections are the addresses of the clients.
func (r *redisStore) connections(ctx context.Context) (map[string]bool, error) {
	addresses := make(map[string]bool)
	for _, c := range r.clients {
		list, err := c.Do(ctx, c.B().ClientList().Build()).ToString()
		if err != nil {
			return nil, err
		}
		for field := range strings.FieldsSeq(list) {
			if address, ok := strings.CutPrefix(field, "addr="); ok {
				addresses[address] = true
			}
		}
	}
	return addresses, nil
}

// monitor counts the commands that clients send for so long, without those that
// scripts run, and without those of the clients named.
func (r *redisStore) monitor(ctx context.Context, length time.Duration, without map[string]bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.servers[0].Addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		return 0, err
	}
	n := 0
	for lines := bufio.NewReader(conn); ; {
		line, err := lines.ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("monitor: %w", err)
		}
		if client, ok := monitored(line); ok && !without[client] {
			n++
		}
	}
}

// monitored finds the client in a line of MONITOR: its time, the database and the
// client in brackets, and the command. Scripts have no address but the word lua.
func monitored(line string) (client string, ok bool) {
	_, rest, ok := strings.Cut(line, " [")
	source, _, closed := strings.Cut(rest, "] ")
	_, client, found := strings.Cut(source, " ")
	return client, ok && closed && found && client != "lua"
}

// postgresStore is River's.
type postgresStore struct{ *postgres }

func (p postgresStore) url() string                     { return p.URL }
func (p postgresStore) clear(ctx context.Context) error { return p.Clear(ctx) }

func (p postgresStore) usage(context.Context) (usage, error) {
	cpu, err := p.CPU()
	return usage{cpu: cpu}, err
}
