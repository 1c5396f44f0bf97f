package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The whole demo, on a server of each kind.
func TestDemoOnEachBroker(t *testing.T) {
	if testing.Short() {
		t.Skip("each takes 15 seconds")
	}
	program, err := exec.LookPath("cbsdmq") // of the tests
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range testserver.Brokers {
		if b.Start == nil || b.Same != "" {
			continue // the demo brings it
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			at := testserver.Place{Dir: t.TempDir(), Cbsdmq: program}
			addr, _ := b.Run(t, at)
			uri := b.Keys(addr, at)["uri"].(string)
			text := demonstrate(t, "--broker", b.Section, "--uri", uri)
			if !strings.Contains(text, "your broker ("+b.Section+")\nat "+uri) {
				t.Errorf("it does not say what it runs on:\n%s", text)
			}
			opener := all.Opener{ClientOnly: true}
			open, closer, err := opener.Open(t.Context(), b.Section, bus.Config{URI: uri})
			if err != nil {
				t.Fatal(err)
			}
			defer closer.Close()
			if n, err := open.Sweep(t.Context(), func(tube string) bool { return strings.HasPrefix(tube, demoTubes) }, 0); n > 0 || err != nil {
				t.Errorf("%d replies that nobody has read were left, %v", n, err)
			}
		})
	}
	t.Run("zeromq", func(t *testing.T) {
		t.Parallel()
		demonstrate(t, "--broker", "zeromq")
	})
}

func demonstrate(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("cbsdmq", append([]string{"demo"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	const end = "\ndemo: 11 jobs, each one answered; one agent killed, no job lost, none begun twice"
	if err != nil || !strings.Contains(string(out), end) || stderr.Len() > 0 {
		t.Fatalf("demo %s: %v\n%s\n%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// Where no server answers the demo says what starts one.
func TestDemoWithoutServer(t *testing.T) {
	for _, kind := range config.Kinds() {
		if kind == "zeromq" {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			addr := testserver.FreeAddr(t)
			out, err := exec.Command("cbsdmq", "demo", "--broker", kind, "--uri", addr).CombinedOutput()
			start, _, _ := strings.Cut(demoServers[kind].start, ";")
			if err == nil || start == "" || !strings.Contains(string(out), "hint: start one") || !strings.Contains(string(out), start) || !strings.Contains(string(out), addr) {
				t.Errorf("%v, without a word on how to start one (%q):\n%s", err, start, out)
			}
		})
	}
}
