package cbsdsim

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestExit(t *testing.T) {
	dir := newPool(t)
	configure(t, dir, Config{Commands: map[string]Behaviour{
		"jcreate":    {Exit: new(3), Stdout: "no space\n", Stderr: "really\n"},
		"jcreate j2": {Exit: new(4), Act: true},
		"jcreate j3": {Exit: new(0)},
	}})
	out, errs, code := cbsd(dir, "jcreate", "jname=j1", "ver=empty")
	if out != "no space\n" || errs != "really\n" || code != 3 {
		t.Errorf("got %q, %q, %d", out, errs, code)
	}
	if _, _, code := cbsd(dir, "jcreate", "jname=j2", "ver=empty"); code != 4 {
		t.Errorf("exit status %d, want 4", code)
	}
	if out, _, code := cbsd(dir, "jcreate", "jname=j3", "ver=empty"); code != 0 || out != "" {
		t.Errorf("got %q, %d", out, code)
	}
	if got := must(t, dir, "jls", "header=0", "display=jname"); got != "j2\n" {
		t.Errorf("jails are %q, want j2 alone", got)
	}
}

func TestDie(t *testing.T) {
	dir := newPool(t)
	configure(t, dir, Config{Commands: map[string]Behaviour{"bstart": {Die: true}}})
	must(t, dir, tiny("bcreate", "vm1")...)
	out := must(t, dir, "bstart", "jname=vm1")
	for _, line := range []string{"Waiting for PID..........\n", "PID: 0\n", "bstart done in 11 seconds\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	if got := field(t, dir, "bls", "header=0", "display=jid,status"); got != "0  Off" {
		t.Errorf("guest is %s", got)
	}
}

func TestOutputBytes(t *testing.T) {
	dir := newPool(t)
	const size = 50 << 20
	configure(t, dir, Config{Commands: map[string]Behaviour{"*": {OutputBytes: size, Seed: 7, Exit: new(0)}}})
	sum := func(run func(io.Writer)) (string, int64) {
		h := sha256.New()
		w := &counter{w: h}
		run(w)
		return string(h.Sum(nil)), w.n
	}
	command, n := sum(func(w io.Writer) {
		Main([]string{"summary"}, []string{"workdir=" + dir, "NOINTER=1"}, w, io.Discard)
	})
	same, _ := sum(func(w io.Writer) {
		if err := WriteText(w, size, 7); err != nil {
			t.Error(err)
		}
	})
	if n != size || command != same {
		t.Errorf("%d bytes, same as WriteText: %t", n, command == same)
	}
	var b, other bytes.Buffer
	if err := errors.Join(WriteText(&b, 1000, 1), WriteText(&other, 1000, 2)); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(b.Bytes(), other.Bytes()) {
		t.Error("another seed is the same text")
	}
	if !regexp.MustCompile(`^([-_A-Za-z0-9]{79}\n){12}[-_A-Za-z0-9]{40}$`).Match(b.Bytes()) {
		t.Errorf("not lines of 79 letters:\n%s", b.String())
	}
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

func TestDelay(t *testing.T) {
	dir := newPool(t)
	configure(t, dir, Config{Commands: map[string]Behaviour{"version": {Delay: 0.1}}})
	begun := time.Now()
	out := must(t, dir, "version")
	if took := time.Since(begun); took < 100*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if want := "Progress: 10%\n"; !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "Progress: 100%\n"+Version+"\n") {
		t.Errorf("printed %q", out)
	}
}

func TestUntil(t *testing.T) {
	dir := newPool(t)
	file := filepath.Join(t.TempDir(), "go on")
	configure(t, dir, Config{Commands: map[string]Behaviour{"version": {Until: file}}})
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan string, 1)
		go func() {
			out, _, _ := cbsd(dir, "version")
			ended <- out
		}()
		synctest.Wait()
		select {
		case out := <-ended:
			t.Fatalf("without the file it printed %q", out)
		default:
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := <-ended; out != Version+"\n" {
			t.Errorf("printed %q", out)
		}
	})
}

func TestJournal(t *testing.T) {
	dir := newPool(t)
	journal := filepath.Join(t.TempDir(), "journal")
	configure(t, dir, Config{Journal: journal})
	must(t, dir, "jcreate", "jname=j1", "ver=empty")
	must(t, dir, "jls")
	must(t, dir, "bsnapshot", "mode=list")
	if _, _, code := cbsdEnv(dir, []string{"CBSDMQ_JOB=01J9"}, "jstop", "jname=j1"); code != 1 {
		t.Errorf("exit status %d", code)
	}
	if _, _, code := cbsd(dir, "nosuch"); code != 127 {
		t.Errorf("exit status %d", code)
	}
	configure(t, dir, Config{Journal: journal, JournalReads: true})
	must(t, dir, "jget", "jname=j1", "ip4_addr")
	configure(t, dir, Config{Journal: journal, Commands: map[string]Behaviour{"jset": {OutputOfJob: true, OutputBytes: 1 << 20, Exit: new(0)}}})
	out, _, _ := cbsdEnv(dir, []string{"CBSDMQ_JOB=01J9"}, "jset", "jname=j1", "astart=1")
	size, seed := JobText("01J9", 1<<20)
	var text bytes.Buffer
	if err := WriteText(&text, size, seed); err != nil || text.String() != out || size == 0 {
		t.Errorf("printed %d bytes, not the %d of the job: %v", len(out), size, err)
	}
	sum := sha256.Sum256(text.Bytes())
	must(t, dir, "jclone", "old=j1", "new=j2", "host_hostname=j2.example.org")
	data, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`(?m)^([BE]) \d{19} \d+`).ReplaceAllString(string(data), "$1")
	got = regexp.MustCompile(`(?m)(\D\d+) \d+ [0-9a-f]{16}$`).ReplaceAllString(got, "$1")
	want := `B - jcreate j1 ["jname=j1","ver=empty"]
E - jcreate j1 0
B 01J9 jstop j1 ["jname=j1"]
E 01J9 jstop j1 1
B - jget j1 ["jname=j1","ip4_addr"]
E - jget j1 0
B 01J9 jset j1 ["jname=j1","astart=1"]
E 01J9 jset j1 0
B - jclone j1,j2 ["old=j1","new=j2","host_hostname=j2.example.org"]
E - jclone j1,j2 0
`
	if got != want {
		t.Errorf("journal is\n%swant\n%s", got, want)
	}
	if end := fmt.Sprintf(" 0 %d %x\n", size, sum[:8]); !strings.Contains(string(data), end) {
		t.Errorf("no%sin\n%s", end, data)
	}
}

// A second command at work on a guest is written down, also where the first is
// killed.
func TestOverlap(t *testing.T) {
	dir := newPool(t)
	journal := filepath.Join(t.TempDir(), "journal")
	must(t, dir, "jcreate", "jname=j1", "ver=empty")
	configure(t, dir, Config{Journal: journal})
	first := &call{name: "jset", conf: Config{Journal: journal}, env: []string{"CBSDMQ_JOB=first"}}
	locks, err := first.lockGuests([]string{"j1"})
	if err != nil {
		t.Fatal(err)
	}
	must(t, dir, "jset", "jname=j1", "astart=0")
	locks[0].Close()
	must(t, dir, "jset", "jname=j1", "astart=1")
	data, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "\nO "); n != 1 || !strings.Contains(string(data), fmt.Sprintf(" - jset j1 first %d\n", os.Getpid())) {
		t.Errorf("%d overlaps in\n%s", n, data)
	}
}

// What the real program does with values, it does: it runs them.
func TestEvaluate(t *testing.T) {
	dir := newPool(t)
	must(t, dir, tiny("bcreate", "vm1")...)
	canary := filepath.Join(t.TempDir(), "canary")
	touched := func() bool {
		_, err := os.Stat(canary)
		return err == nil && os.Remove(canary) == nil
	}
	const injection = "tags=$(touch $CANARY)x"
	must(t, dir, "bset", "jname=vm1", injection)
	if touched() {
		t.Error("evaluated without being told to")
	}
	configure(t, dir, Config{Evaluate: true, Canary: canary})
	for _, v := range []string{injection, "tags=`touch $CANARY`x", `tags=";touch $CANARY;:"`, "jname=$(touch $CANARY)vm1"} {
		args := []string{"bset", "jname=vm1", v}
		out, errs, code := cbsd(dir, args...)
		if quotes := strings.Contains(v, `"`); touched() == quotes { // quotes are gone before
			t.Errorf("cbsd %v: evaluated: %t\n%s%s(exit status %d)", args, !quotes, out, errs, code)
		}
	}
	must(t, dir, "bset", "jname=vm1", "nosuch=$(touch $CANARY)")
	if touched() {
		t.Error("evaluated an argument that is unknown")
	}
	must(t, dir, "bset", "jname=vm1", "tags=$(echo a b)c")
	if got := field(t, dir, "bget", "jname=vm1", "tags"); got != "tags: a bc" {
		t.Errorf("got %q", got)
	}
	if out, _, code := cbsd(dir, "bget", "jname=$(true)"); out != "Please set bget: jname\n" || code != 1 {
		t.Errorf("got %q, exit status %d", out, code)
	}
	// what its two readings of an argument and its patterns do
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "$(touch $CANARY)"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "bset", "jname=vm1", "vnc_password="+files+"/*")
	if !touched() {
		t.Error("the name of a file that a pattern stands for is not evaluated")
	}
	if out, _, _ := cbsd(dir, "bstop", "jname=vm1", "hard_timeout= jname=nosuch"); !strings.Contains(out, "nosuch") {
		t.Errorf("an argument that a value becomes in the wrapper is not taken: %q", out)
	}
	if _, _, code := cbsd(dir, "bget", "jname=$("); code != 2 {
		t.Errorf("exit status %d of a syntax error, want 2", code)
	}
}

func TestBadConfig(t *testing.T) {
	dir := newPool(t)
	if err := os.WriteFile(workdir(dir).configFile(), []byte(`{"dealy": 1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, errs, code := cbsd(dir, "bls")
	if code != 1 || !strings.Contains(errs, `"dealy"`) {
		t.Errorf("exit status %d, %s", code, errs)
	}
}

func TestPreset(t *testing.T) {
	dir := newPool(t)
	must(t, dir, tiny("bcreate", "vm1")...)
	out, _, code := cbsdEnv(dir, []string{"H_CBSD_jname=vm1"}, "bget", "mode=quiet", "vm_cpus")
	if out != "1\n" || code != 0 {
		t.Errorf("got %q, exit status %d", out, code)
	}
}

func TestWorkdir(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Main([]string{"bls"}, nil, &out, &errs); code != 1 || errs.String() != "cbsd: no workdir defined\n" {
		t.Errorf("exit status %d, %q", code, errs.String())
	}
	dir := newPool(t)
	other := newPool(t)
	out.Reset()
	if code := Main([]string{"bls", "header=0"}, []string{"cbsd_workdir=" + other, "workdir=" + dir}, &out, &errs); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if code := Main([]string{"jcreate", "jname=j1"}, []string{"cbsd_workdir=" + other}, io.Discard, &errs); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := must(t, other, "jls", "header=0", "display=jname"); got != "j1\n" {
		t.Errorf("jails are %q", got)
	}
	if _, errs, code := cbsd(t.TempDir(), "bls"); code != 1 || !strings.Contains(errs, "local.sqlite") && !strings.Contains(errs, "unable to open") {
		t.Errorf("no workdir: exit status %d, %q", code, errs)
	}
	if err := Init(dir, "again"); err == nil {
		t.Error("made a workdir of one")
	}
	for _, f := range []string{
		"nc.inventory", "ver", "nodename", "cmd.subr", "var/db/local.sqlite", "var/db/nodes.sqlite", "var/db/cbsdtaskd.sqlite",
		"var/db/storage_media.sqlite", "var/db/images.sqlite", "jails-data/dir.id", "jails-system/dir.id", "jails-rcconf/dir.id",
	} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
	if target, err := os.Readlink(filepath.Join(dir, "var/db/local.sqlite")); err != nil || target != "inv.node.example.org.sqlite" {
		t.Errorf("local.sqlite is a link to %q: %v", target, err)
	}
}

func TestProfilesAreJSON(t *testing.T) {
	dir := newPool(t)
	var got []struct {
		Name, Profile, Type string
		Imgsize             int64 `json:"imgsize_bytes"`
	}
	if err := json.Unmarshal([]byte(must(t, dir, "get-profiles", "src=cloud", "json=1")), &got); err != nil {
		t.Fatal(err)
	}
	for _, p := range got {
		if _, ok := findProfile(p.Type, p.Profile); !ok || p.Name == "" || p.Imgsize < gb {
			t.Errorf("profile %+v", p)
		}
	}
	if len(got) < 2 {
		t.Errorf("%d profiles", len(got))
	}
}

func TestClusterIsJSON(t *testing.T) {
	dir := newPool(t)
	must(t, dir, tiny("bcreate", "vm1", "runasap=1")...)
	must(t, dir, tiny("qcreate", "vm2")...)
	must(t, dir, "jcreate", "jname=j1", "ver=empty")
	var got struct {
		Servers []struct {
			ID      string
			PowerOn bool  `json:"is_power_on"`
			VNCPort int   `json:"vnc_port"`
			RAM     int64 `json:"ram_bytes"`
		}
		Clusters struct {
			Total int `json:"total_environment"`
		}
	}
	if err := json.Unmarshal([]byte(must(t, dir, "cluster")), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Servers) != 2 || got.Clusters.Total != 3 {
		t.Fatalf("got %+v", got)
	}
	if s := got.Servers[0]; s.ID != "vm1" || !s.PowerOn || s.VNCPort < 5900 || s.RAM != 64*mb {
		t.Errorf("got %+v", s)
	}
	if s := got.Servers[1]; s.ID != "vm2" || s.PowerOn || s.VNCPort != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestCalled(t *testing.T) {
	for name, want := range map[string]bool{"/usr/local/bin/cbsd": true, "cbsdsim": true, "cbsdmq": false, "bhyve: vm1": false} {
		if Called(name, nil) != want {
			t.Errorf("Called(%q) = %t", name, !want)
		}
	}
	if !Called("bhyve: vm1", []string{roleVariable + "=" + roleGuest}) {
		t.Error("a guest is not called")
	}
}

// Each command has the arguments it lists, and is carried out by something.
func TestCommands(t *testing.T) {
	names := Commands()
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Error("commands are not sorted, or not different")
	}
	for _, name := range names {
		cmd, ok := findCommand(name)
		if !ok || cmd.desc == "" || cmd.module == "" {
			t.Errorf("%s: %+v, %t", name, cmd, ok)
		}
	}
}
