package cbsd

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzOutput: whatever a command prints, the reason that is read from it is one
// line of text of bounded length that was in it.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("No such domain: x\nbstart done in 2 seconds\n"))
	f.Add([]byte("\x1b[1;31mred\x1b[0m\r\x1b[2K\xff\xfe\x00"))
	f.Add([]byte(strings.Repeat("é", 1000)))
	f.Fuzz(func(t *testing.T, out []byte) {
		line := lastLine(out, anything)
		if len(line) > reasonMax+len("...") || !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
			t.Fatalf("reason %q", line)
		}
		if len(out) < reasonMax && lastLine([]byte(line), anything) != line {
			t.Fatalf("reason %q of the reason %q", lastLine([]byte(line), anything), line)
		}
	})
}

// FuzzNames: the answer of --args is a bounded set of names that may be names of
// arguments.
func FuzzNames(f *testing.F) {
	f.Add([]byte("node 2\njname\nvm_ram\n\n"))
	f.Add([]byte(strings.Repeat("x", 70000) + "\njname\n"))
	f.Add([]byte("jname=$(id)\n jname \r\n\x00a\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		names := parseArgs(out)
		if len(names) > argsListed {
			t.Fatalf("%d names", len(names))
		}
		for name := range names {
			if !argName.MatchString(name) || !strings.Contains(string(out), name) {
				t.Fatalf("name %q", name)
			}
		}
	})
}

// FuzzSize: a size is the same, however it is written.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"", "1g", "1.5G", "512m", "10b", "nan", "inf", "-1", "0x1p4", "1e30", "1e3k", "b", "9999999t", "1_000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := parseSize(s)
		if !ok {
			return
		}
		if n < 0 || n > 1<<60 {
			t.Fatalf("%q is %d", s, n)
		}
		if upper, ok := parseSize(strings.ToUpper(s)); !ok || upper != n {
			t.Fatalf("%q is %d, in capitals %d", s, n, upper)
		}
	})
}

// FuzzJails reads what jls says.
func FuzzJails(f *testing.F) {
	f.Add("1 j1\n2 j2\n")
	f.Add("x y\n1\n1 2 3\n-1 a\n99999999999999999999 b\n")
	f.Fuzz(func(t *testing.T, out string) {
		for name := range parseJails(out) {
			if name == "" || strings.ContainsFunc(name, unicode.IsSpace) {
				t.Fatalf("jail %q", name)
			}
		}
	})
}
