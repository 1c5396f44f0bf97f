// Command fuzzall runs every fuzz target of the module, one after the other,
// each for the time given: go run ./internal/fuzzall 30s.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: fuzzall TIME")
		return 2
	}
	var failed []string
	files, err := exec.Command("git", "ls-files", "*_test.go").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall: listing tests:", err)
		return 1
	}
	for file := range strings.Lines(string(files)) {
		file = strings.TrimSpace(file)
		text, err := os.ReadFile(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, "fuzzall:", err)
			return 1
		}
		for _, m := range target.FindAllSubmatch(text, -1) {
			if !fuzz("./"+filepath.Dir(file), string(m[1]), args[0]) {
				failed = append(failed, file+" "+string(m[1]))
			}
		}
	}
	if len(failed) > 0 {
		fmt.Println("failed:", strings.Join(failed, ", "))
		return 1
	}
	return 0
}

func fuzz(pkg, name, time string) bool {
	cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", time, pkg)
	out, err := cmd.CombinedOutput()
	if err != nil {
		fmt.Printf("%s %s:\n%s\n", pkg, name, out)
		return false
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	fmt.Printf("%s %s: %s\n", pkg, name, lines[max(0, len(lines)-3)])
	return true
}
