// Command replay runs a schedule of e2e/simulation so that it is the same each
// time, to the byte: it builds the bench with a Go runtime whose random
// decisions (select, the order of maps and of timers, math/rand) follow from
// the program alone, and which takes the processor from no goroutine.
//
//	go run ./e2e/replay -seed 4711           # what happens in it
//	go run ./e2e/replay -seed 4711 -times 2  # twice, and whether it was the same
//	go run ./e2e/replay -o bench.test        # the bench itself, to look for seeds with:
//	GOMAXPROCS=1 ./bench.test -test.run Random -for 60s -test.v
//
// A failure that the ordinary bench found under a seed depends on such decisions
// too, so it may not be among those that the seed leads to here: look for it with
// the bench that -o makes, from that seed on.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	seed := flag.Uint64("seed", 1, "the schedule")
	times := flag.Int("times", 1, "how often; they are compared")
	out := flag.String("o", "", "only build the bench, to this file")
	flag.Parse()
	dir, err := os.MkdirTemp("", "cbsdmq-replay-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "bench.test")
	if *out != "" {
		program = *out
	}
	if err := build(ctx, dir, program); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		return 1
	}
	if *out != "" {
		return 0
	}
	var first []byte
	failed := false
	for i := range *times {
		cmd := exec.CommandContext(ctx, program, "-test.run", "Seed$", "-seed", fmt.Sprint(*seed), "-test.v")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1") // from its first moment on
		text, err := cmd.CombinedOutput()
		failed = err != nil
		text = withoutTimes(text)
		switch {
		case i == 0:
			first = text
			os.Stdout.Write(text)
		case !bytes.Equal(first, text):
			fmt.Fprintf(os.Stderr, "replay: run %d differs from the first:\n%s", i+1, difference(first, text))
			return 3
		}
	}
	if *times > 1 {
		fmt.Fprintf(os.Stderr, "replay: the same %d times, %d bytes\n", *times, len(first))
	}
	if failed {
		return 2
	}
	return 0
}

// build builds the bench over the changed runtime.
func build(ctx context.Context, dir, program string) error {
	text, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return fmt.Errorf("asking for GOROOT: %w", err)
	}
	env := strings.Fields(string(text))
	replace := make(map[string]string)
	for _, p := range patches {
		name := filepath.Join(env[0], "src", filepath.FromSlash(p.file))
		from := name
		if replace[name] != "" {
			from = replace[name]
		}
		b, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("reading the library: %w", err)
		}
		if n := bytes.Count(b, []byte(p.old)); n != 1 {
			return fmt.Errorf("the library of %s is not the one that can be changed: in %s this is %d times, not once:\n%s", env[1], p.file, n, p.old)
		}
		replace[name] = filepath.Join(dir, strings.ReplaceAll(p.file, "/", "_"))
		if err := os.WriteFile(replace[name], bytes.Replace(b, []byte(p.old), []byte(p.new), 1), 0o600); err != nil {
			return fmt.Errorf("writing the library: %w", err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return fmt.Errorf("writing the overlay: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", file, "-o", program, "github.com/cbsd/cbsdmq/e2e/simulation")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT=norandomizedheapbase64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the bench: %w\n%s", err, text)
	}
	return nil
}

// withoutTimes leaves out how long the test took.
func withoutTimes(text []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("ok ")) {
			b.Write(line)
		}
	}
	return b.Bytes()
}

// difference is where two texts part.
func difference(a, b []byte) string {
	as, bs := strings.SplitAfter(string(a), "\n"), strings.SplitAfter(string(b), "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return fmt.Sprintf("line %d\n- %s+ %s", i+1, as[i], bs[i])
		}
	}
	return "one is longer\n"
}
