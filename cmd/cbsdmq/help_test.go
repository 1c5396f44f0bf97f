package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
)

// Every subcommand has examples, and they use flags that it has.
func TestExamples(t *testing.T) {
	g := &globals{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	root := newRootCommand(g)
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Name() != "help" && sub.Name() != "completion" {
				check(sub)
			}
		}
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s: no example, or no description", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			if err := example(strings.TrimSpace(line)); err != nil {
				t.Errorf("%s: %q: %v", cmd.CommandPath(), line, err)
			}
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short description ends with a full stop", cmd.CommandPath())
		}
	}
	check(root)
}

// pieces takes a line for a shell apart into commands; a file that output goes
// to is none.
var pieces = regexp.MustCompile(`[|&>]+|\$\(|\)|;`)

// example parses the commands of ours in a line for a shell.
func example(line string) error {
	found := false
	for _, piece := range pieces.Split(line, -1) {
		words := strings.Fields(piece)
		if len(words) == 0 || words[0] != "cbsdmq" {
			continue
		}
		found = true
		g := &globals{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
		root := newRootCommand(g)
		cmd, rest, err := root.Find(words[1:])
		if err != nil {
			return err
		}
		if err := cmd.ParseFlags(rest); err != nil {
			return err
		}
		if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
			return err
		}
		if err := cmd.ValidateRequiredFlags(); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("it has no cbsdmq")
	}
	return nil
}

func TestPrintError(t *testing.T) {
	hinted := cbsdmq.Errorf(cbsdmq.CodeRefused, "uri", "missing").WithHint("add it")
	for want, err := range map[string]error{
		"":                  nil,
		"cbsdmq: no luck\n": fmt.Errorf("no luck"),
		"cbsdmq: f.json: uri: missing\nhint: add it\n":                                  fmt.Errorf("f.json: %w", hinted),
		"cbsdmq: uri: missing\ncbsdmq: uri: missing\nhint: add it\n":                    joined{hinted, hinted},
		"cbsdmq: uri: missing\ncbsdmq: at least one pool\nhint: add it\nhint: or two\n": joined{hinted, cbsdmq.Errorf("", "", "at least one pool").WithHint("or two")},
	} {
		var b bytes.Buffer
		printError(&b, err)
		if b.String() != want {
			t.Errorf("got %q, want %q", &b, want)
		}
	}
}

type joined []error

func (j joined) Unwrap() []error { return j }
func (j joined) Error() string {
	var lines []string
	for _, err := range j {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1023: "1023", 1024: "1k", 1536: "1.5k", 64 << 20: "64M", 1<<20 - 1: "1M", 3 << 40: "3T", 1<<63 - 1: "8E",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestWithoutSecrets(t *testing.T) {
	for uri, want := range map[string]string{
		"127.0.0.1:11300":                "127.0.0.1:11300",
		"embedded":                       "embedded",
		"nats://a:4222, tls://b:4222":    "nats://a:4222, tls://b:4222",
		"nats://u:p@a:4222,nats://t@b:1": "nats://xxxxx@a:4222,nats://xxxxx@b:1",
	} {
		if got := withoutSecrets(uri); got != want {
			t.Errorf("%s: got %s, want %s", uri, got, want)
		}
	}
}

// typed are lines in the pages that a person would copy: in an indented or a
// fenced block, with or without a prompt.
var typed = regexp.MustCompile(`^(?:    )?(?:\$ )?((?:id=\$\()?cbsdmq .+)$`)

// Every command of ours in the pages is one that there is, with flags and
// arguments that it takes.
func TestCommandsInPages(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(pages, "../../README.md", "../../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		fenced := false
		for i, line := range strings.Split(string(text), "\n") {
			fenced = fenced != strings.HasPrefix(line, "```")
			m := typed.FindStringSubmatch(line)
			if m == nil || !fenced && !strings.HasPrefix(line, "    ") || strings.Contains(line, "...") {
				continue
			}
			found++
			command, _, _ := strings.Cut(m[1], "  ") // what follows is a remark
			command, _, _ = strings.Cut(command, " #")
			if err := example(strings.TrimSuffix(command, `\`)); err != nil {
				t.Errorf("%s:%d: %q: %v", filepath.Base(page), i+1, command, err)
			}
		}
	}
	if found < 100 {
		t.Errorf("%d commands found", found)
	}
}
