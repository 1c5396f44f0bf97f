// Command fuzzall runs every fuzz target of the module, three at a time, each for
// the time given: go run ./internal/fuzzall 30s.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// atOnce is how many targets run beside each other, with one worker each.
const atOnce = 3

var definition = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

type target struct{ pkg, name string }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: fuzzall TIME")
		return 2
	}
	targets, err := find()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall:", err)
		return 1
	}
	var (
		mu     sync.Mutex
		failed []string
		wg     sync.WaitGroup
		next   = make(chan target)
	)
	for range atOnce {
		wg.Go(func() {
			for t := range next {
				said, ok := fuzz(t, args[0])
				mu.Lock()
				fmt.Printf("%s %s: %s\n", t.pkg, t.name, said)
				if !ok {
					failed = append(failed, t.pkg+" "+t.name)
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range targets {
		next <- t
	}
	close(next)
	wg.Wait()
	if len(failed) > 0 {
		fmt.Println("failed:", strings.Join(failed, ", "))
		return 1
	}
	return 0
}

func find() ([]target, error) {
	files, err := exec.Command("git", "ls-files", "*_test.go").Output()
	if err != nil {
		return nil, fmt.Errorf("listing tests: %w", err)
	}
	var targets []target
	for file := range strings.Lines(string(files)) {
		file = strings.TrimSpace(file)
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range definition.FindAllSubmatch(text, -1) {
			targets = append(targets, target{"./" + filepath.Dir(file), string(m[1])})
		}
	}
	return targets, nil
}

// fuzz runs a target. On a loaded machine go test also fails because a worker
// did not answer in time: a failure that the target does not repeat with what
// was found is not one.
func fuzz(t target, time string) (said []byte, ok bool) {
	out, err := goTest(t.pkg, "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", time, "-parallel", "1")
	if err != nil {
		if again, err := goTest(t.pkg, "-count=1", "-run", "^"+t.name+"$"); err != nil {
			return append(append([]byte("\n"), out...), again...), false
		}
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return lines[max(0, len(lines)-3)], true
}

func goTest(pkg string, args ...string) ([]byte, error) {
	return exec.Command("go", append(append([]string{"test"}, args...), pkg)...).CombinedOutput()
}
