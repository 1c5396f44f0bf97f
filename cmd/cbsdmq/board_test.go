package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/metrics"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The dashboard shows every metric, and none that there is not.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../dist/grafana/cbsdmq.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool) // shown or not
	for _, f := range append(agent.Families(), mBuild) {
		if !strings.HasPrefix(f.Name, "cbsdmq_") || f.Help == "" || (f.Kind == metrics.Counter) != strings.HasSuffix(f.Name, "_total") {
			t.Errorf("%+v", f)
		}
		known[f.Name] = false
		if f.Kind == metrics.Histogram {
			delete(known, f.Name)
			known[f.Name+"_bucket"] = false
		}
	}
	name := regexp.MustCompile(`cbsdmq_\w+`)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			names := name.FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s: %s shows nothing of ours", p.Title, target.Expr)
			}
			for _, n := range names {
				if _, is := known[n]; !is {
					t.Errorf("%s: there is no %s", p.Title, n)
				}
				known[n] = true
			}
		}
	}
	for n, shown := range known {
		if !shown {
			t.Errorf("%s is not shown", n)
		}
	}
}

// An address answers for its own pools, as long as it is configured.
func TestBoardListens(t *testing.T) {
	b := newBoard()
	defer b.close()
	log := slog.New(slog.DiscardHandler)
	one, two := testserver.FreeAddr(t), testserver.FreeAddr(t)
	pool := func(name, addr string) *config.Config {
		c := config.Default()
		c.Pool, c.MetricsListen = name, addr
		return c
	}
	get := func(url string) (int, string) {
		resp, err := http.Get(url)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	b.listen([]*config.Config{pool("pool1", one), pool("pool2", two), pool("pool3", "")}, log)
	b.failed("pool2", os.ErrNotExist)
	for url, want := range map[string]struct {
		status int
		text   string
	}{
		"http://" + one + "/-/ready":   {503, "pool pool1: not served: it is being opened\n"},
		"http://" + two + "/-/ready":   {503, "pool pool2: not served: file does not exist\n"},
		"http://" + two + "/-/healthy": {200, "healthy\n"},
		"http://" + two + "/else":      {404, "404 page not found\n"},
	} {
		if status, text := get(url); status != want.status || text != want.text {
			t.Errorf("%s: %d %q", url, status, text)
		}
	}
	_, text := get("http://" + one + "/metrics")
	for _, line := range []string{`cbsdmq_pool_ready{pool="pool1"} 0`, `cbsdmq_jobs_ended_total{pool="pool1",state="done"} 0`} {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	if strings.Contains(text, "pool2") || strings.Contains(text, "pool3") {
		t.Errorf("others in\n%s", text)
	}
	b.listen([]*config.Config{pool("pool1", two)}, log)
	if status, text := get("http://" + one + "/-/healthy"); status != 0 {
		t.Errorf("the old address answers: %d %s", status, text)
	}
	if status, text := get("http://" + two + "/-/ready"); status != 503 || strings.Contains(text, "pool2") {
		t.Errorf("%d %s", status, text)
	}
}
