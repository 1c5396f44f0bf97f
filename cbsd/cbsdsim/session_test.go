package cbsdsim

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the sessions' output to testdata")

// TestSessions runs the sessions in testdata. A session is a file of
//
//	# a remark
//	@ {"zfs": true}          the configuration from here on
//	$ bls jname='a b'        a command, with the output that it must have,
//	                         lines of standard error begin with "! ",
//	(exit status 1)          and its exit status unless 0
func TestSessions(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sessions: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playSession(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" && !*update {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func playSession(t *testing.T, script string) string {
	t.Helper()
	dir := newPool(t)
	var b strings.Builder
	for line := range strings.Lines(script) {
		switch {
		case strings.HasPrefix(line, "# "), line == "\n":
			b.WriteString(line)
		case strings.HasPrefix(line, "@ "):
			b.WriteString(line)
			var c Config
			if err := json.Unmarshal([]byte(line[2:]), &c); err != nil {
				t.Fatal(err)
			}
			configure(t, dir, c)
		case strings.HasPrefix(line, "$ "):
			b.WriteString(line)
			out, errs, code := cbsd(dir, cutWords(strings.TrimSpace(line[2:]))...)
			b.WriteString(plain(out, dir))
			if out != "" && !strings.HasSuffix(out, "\n") {
				b.WriteString("\\\n")
			}
			for l := range strings.Lines(plain(errs, dir)) {
				b.WriteString("! " + l)
			}
			if code != 0 {
				fmt.Fprintf(&b, "(exit status %d)\n", code)
			}
		}
	}
	return b.String()
}

// plain is output without what changes from run to run.
func plain(s, dir string) string {
	s = strings.ReplaceAll(s, dir, "/pool")
	for _, c := range changing {
		s = c.what.ReplaceAllString(s, c.with)
	}
	var b strings.Builder
	for l := range strings.Lines(s) { // an empty line would be a remark
		if l == "\n" {
			l = "\\\n"
		}
		b.WriteString(l)
	}
	return b.String()
}

// cutWords cuts at spaces outside of single quotes.
func cutWords(s string) []string {
	var words []string
	quoted := false
	for i, part := range strings.Split(s, "'") {
		if quoted = i%2 == 1; quoted {
			words[len(words)-1] += part
			continue
		}
		for j, w := range strings.Split(part, " ") {
			if j == 0 && i > 0 {
				words[len(words)-1] += w
			} else {
				words = append(words, w)
			}
		}
	}
	return words
}

// newPool makes a workdir whose guests are stopped before it is removed.
func newPool(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pool")
	if err := Init(dir, "node.example.org"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		configure(t, dir, Config{})
		for _, cmd := range []string{"bremove", "qremove"} {
			if out, _, code := cbsd(dir, cmd, "jname=*"); code != 0 {
				t.Errorf("%s: exit status %d\n%s", cmd, code, out)
			}
		}
	})
	return dir
}

func configure(t testing.TB, dir string, c Config) {
	t.Helper()
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
}

func cbsd(dir string, args ...string) (stdout, stderr string, code int) {
	return cbsdEnv(dir, nil, args...)
}

func cbsdEnv(dir string, env []string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = Main(args, append([]string{"workdir=" + dir, "NOCOLOR=1", "NOINTER=1"}, env...), &out, &errs)
	return out.String(), errs.String(), code
}

// must runs a command that has to end with 0 and returns its output.
func must(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, errs, code := cbsd(dir, args...)
	if code != 0 {
		t.Fatalf("cbsd %s: exit status %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func tiny(verb, jname string, more ...string) []string {
	return append([]string{verb, "jname=" + jname, "vm_os_type=linux", "vm_os_profile=lab-tiny",
		"imgsize=10m", "vm_cpus=1", "vm_ram=64m"}, more...)
}
