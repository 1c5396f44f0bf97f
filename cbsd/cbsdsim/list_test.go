package cbsdsim

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTable(t *testing.T) {
	var b bytes.Buffer
	c := &call{out: &b}
	c.table([][]string{{"JNAME", "JID", "STATUS"}, {"a", "12767", "On"}, {"longest", "0", "Maintenance:two", "words"}})
	want := "" +
		"JNAME    JID    STATUS\n" +
		"a        12767  On\n" +
		"longest  0      Maintenance:two  words\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "512": 512, "64m": 64 * mb, "1.5g": 3 * gb / 2, "1G": gb, "2t": 2048 * gb, "10b": 10} {
		if got, ok := parseSize(s); !ok || got != want {
			t.Errorf("parseSize(%q) = %d, %t", s, got, ok)
		}
	}
	for _, s := range []string{"", "abc", "m", "-1g", "1x", "NaN", "9999999p"} {
		if got, ok := parseSize(s); ok {
			t.Errorf("parseSize(%q) = %d", s, got)
		}
	}
	for n, want := range map[int64]string{0: "0", 1023: "1023", 10 * mb: "10m", 25276502016: "24g", 270553174016: "252g"} {
		if got := humanSize(n); got != want {
			t.Errorf("humanSize(%d) = %s, want %s", n, got, want)
		}
	}
}

// A size as printed is read as within half a unit of it.
func TestSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<50).Draw(t, "n")
		got, ok := parseSize(humanSize(n))
		if !ok || float64(got) < 0.65*float64(n) || float64(got) > 1.5*float64(n) {
			t.Errorf("%d is printed as %s and read as %d", n, humanSize(n), got)
		}
	})
}

func TestArguments(t *testing.T) {
	a := parseArguments([]string{"vm1", "jname=a~b", `tags="x y"`, "=odd", "n=1", "n=2", "empty="})
	if got := strings.Join(a.words, ","); got != "vm1,b,=odd" {
		t.Errorf("words are %s", got)
	}
	if got := strings.Join(a.keys, ","); got != "jname,tags,n,empty" {
		t.Errorf("keys are %s", got)
	}
	if a.get("jname") != "a" || a.get("tags") != "x y" || a.get("n") != "2" || a.or("empty", "def") != "def" {
		t.Errorf("values are %v", a.values)
	}
	if got := strings.Join(a.raw, " "); got != `vm1 jname="a" b tags="x y" =odd n="1" n="2" empty=""` {
		t.Errorf("raw is %s", got)
	}
}

// On a terminal a command without a name asks, and waits.
func TestPicker(t *testing.T) {
	dir := newPool(t)
	for _, n := range []string{"1vm", "Vm_x", "bad-name"} {
		must(t, dir, tiny("bcreate", n)...)
	}
	in, answer := io.Pipe()
	out := &bytes.Buffer{}
	ended := make(chan int)
	go func() {
		ended <- run([]string{"bremove"}, []string{"workdir=" + dir}, in, true, out, io.Discard)
	}()
	if _, err := io.WriteString(answer, "0\n"); err != nil { // returns when it is read
		t.Fatal(err)
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit status %d", code)
	}
	want := "List of local VMs:\n" +
		" \x1b[1m0 .. CANCEL\x1b[0m\n" +
		" \x1b[1m1 .. \x1b[0;32m1vm on local\x1b[0m\n" +
		" \x1b[1m1 .. \x1b[0;32mVm_x on local\x1b[0m\n" +
		" \x1b[1m1 .. \x1b[0;32mbad-name on local\x1b[0m\n" +
		"\nEnter name or ID or '0' to Cancel: Cancel pressed\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	if code := run([]string{"bremove"}, []string{"workdir=" + dir}, strings.NewReader(""), true, io.Discard, io.Discard); code != 1 {
		t.Errorf("exit status %d when the terminal hangs up", code)
	}
	// without a guest to offer there is nothing to wait for
	out.Reset()
	if code := run([]string{"bstop"}, []string{"workdir=" + dir}, in, true, out, io.Discard); code != 1 || out.String() != "List of online VMs\nNo bhyve specified\n" {
		t.Errorf("exit status %d, %q", code, out.String())
	}
}

func BenchmarkList(b *testing.B) {
	dir := newPool(b)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		must(b, dir, tiny("bcreate", n)...)
	}
	for b.Loop() {
		must(b, dir, "bls")
	}
}
