package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/metrics"
)

// answerWithin bounds what is asked of the pools for one page.
const answerWithin = 3 * time.Second

// A board knows how the pools of this process are, and answers /metrics,
// /-/healthy and /-/ready. It outlives a reading of the configuration.
type board struct {
	mu    sync.Mutex
	pools map[string]*standing
	pages map[string]*http.Server // by address
}

// standing is how one pool is.
type standing struct {
	addr   string        // where it is answered for; "" = nowhere
	server *agent.Server // nil while it is not served
	err    error         // why
	stats  *agent.Stats
}

func newBoard() *board {
	return &board{pools: make(map[string]*standing), pages: make(map[string]*http.Server)}
}

// of returns the standing of a pool. The caller holds b.mu.
func (b *board) of(pool string) *standing {
	s := b.pools[pool]
	if s == nil {
		s = &standing{stats: agent.NewStats(), err: errors.New("it is being opened")}
		b.pools[pool] = s
	}
	return s
}

func (b *board) stats(pool string) *agent.Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.of(pool).stats
}

// served notes who serves a pool, nil: nobody.
func (b *board) served(pool string, server *agent.Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(pool)
	if s.server = server; server != nil {
		s.err = nil
	} else if s.err == nil {
		s.err = errors.New("it is being opened again")
	}
}

func (b *board) failed(pool string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of(pool).err = err
}

// listen answers at the addresses of the pools and nowhere else. What cannot be
// listened at is logged: the pools are served all the same.
func (b *board) listen(cfgs []*config.Config, log *slog.Logger) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.pools {
		s.addr = ""
	}
	wanted := make(map[string]bool)
	for _, c := range cfgs {
		b.of(c.Pool).addr = c.MetricsListen
		if c.MetricsListen != "" {
			wanted[c.MetricsListen] = true
		}
	}
	for name, s := range b.pools {
		if s.server == nil && !slices.ContainsFunc(cfgs, func(c *config.Config) bool { return c.Pool == name }) {
			delete(b.pools, name)
		}
	}
	for addr, page := range b.pages {
		if !wanted[addr] {
			page.Close()
			delete(b.pages, addr)
		}
	}
	for addr := range wanted {
		if b.pages[addr] != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			log.Error("no metrics", "err", err, "hint", "each agent process needs an address of its own (key metrics_listen); SIGHUP tries again")
			continue
		}
		page := &http.Server{
			Handler: b.handler(addr), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
			ReadTimeout: answerWithin, WriteTimeout: 3 * answerWithin, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		}
		b.pages[addr] = page
		go func() { _ = page.Serve(l) }() // ends with Close
		log.Info("metrics", "address", l.Addr().String())
	}
}

func (b *board) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, page := range b.pages {
		page.Close()
	}
}

// A row is a pool as it was when a page was asked for.
type row struct {
	pool string
	standing
}

// rows are the pools that an address is for, by name.
func (b *board) rows(addr string) []row {
	b.mu.Lock()
	defer b.mu.Unlock()
	var rows []row
	for pool, s := range b.pools {
		if s.addr == addr {
			rows = append(rows, row{pool, *s})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.pool, b.pool) })
	return rows
}

var mBuild = &metrics.Family{Name: "cbsdmq_build_info", Help: "1; the version of this program.", Kind: metrics.Gauge}

func (b *board) handler(addr string) http.Handler {
	mux := http.NewServeMux()
	within := func(f func(ctx context.Context, w http.ResponseWriter)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
			defer cancel()
			f(ctx, w)
		}
	}
	mux.HandleFunc("GET /metrics", within(func(ctx context.Context, w http.ResponseWriter) {
		var p metrics.Page
		p.Add(mBuild, 1, "version", version)
		for _, r := range b.rows(addr) {
			if r.server != nil {
				r.server.Metrics(ctx, &p)
			} else {
				agent.NotServed(r.pool, &p)
			}
			r.stats.Metrics(r.pool, &p)
		}
		w.Header().Set("Content-Type", metrics.ContentType)
		_, _ = p.WriteTo(w) // who asked has gone
	}))
	// Healthy is a process that need not be killed: a broker that is away is no
	// reason for that.
	mux.HandleFunc("GET /-/healthy", within(func(ctx context.Context, w http.ResponseWriter) {
		var wrong []string
		for _, r := range b.rows(addr) {
			if r.server == nil {
				continue
			}
			if err := r.server.Alive(ctx); err != nil {
				wrong = append(wrong, fmt.Sprintf("pool %s: %v", r.pool, err))
			}
		}
		say(w, "healthy", wrong)
	}))
	mux.HandleFunc("GET /-/ready", within(func(_ context.Context, w http.ResponseWriter) {
		var wrong []string
		for _, r := range b.rows(addr) {
			if r.server == nil {
				wrong = append(wrong, fmt.Sprintf("pool %s: not served: %v", r.pool, r.err))
				continue
			}
			for _, reason := range r.server.NotReady() {
				wrong = append(wrong, fmt.Sprintf("pool %s: %s", r.pool, reason))
			}
		}
		say(w, "ready", wrong)
	}))
	return mux
}

// say answers a question of health: 200, or 503 and what is wrong, a line each.
func say(w http.ResponseWriter, fine string, wrong []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(wrong) == 0 {
		_, _ = io.WriteString(w, fine+"\n")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	for _, line := range wrong {
		_, _ = io.WriteString(w, line+"\n")
	}
}
