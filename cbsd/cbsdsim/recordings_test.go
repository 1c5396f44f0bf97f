package cbsdsim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A recorded command is one block of a transcript of the real cbsd.
type recorded struct {
	id             string // FILE:N
	pool           string
	line           string // the arguments
	code           int
	stdout, stderr string
}

// recordings are played in the order in which they were made: each goes on
// where the one before it left the guests.
var recordings = []string{"smoke", "qemu", "bhyve3", "misc", "inject", "move", "misc2"}

// notCovered lists the recorded commands that the simulator does not claim.
var notCovered = map[string]string{
	"qemu:4":    "downloads from mirrors that could not be reached",
	"bhyve3:35": "bdescr",
	"misc:20":   "the real list of profiles",
	"misc:21":   "the real list of profiles",
	"misc:22":   "vm-packages",
	"misc:23":   "vm-packages",
	"misc:27":   "dhcpd",
	"misc2:25":  "getinfo",
	"misc2:26":  "mkinventory",
	"misc2:27":  "retrinv",
}

// words are the arguments of those recorded lines that cannot be cut at spaces.
var words = map[string][]string{
	"inject:1":  {"bget", "jname=$(touch pwned1)"},
	"inject:2":  {"bget", "jname=`touch pwned2`"},
	"inject:3":  {"bset", "jname=vma", "tags=a;touch pwned3"},
	"inject:4":  {"bset", "jname=vma", "tags=$(id -u)"},
	"inject:6":  {"bset", "jname=vma", "tags=two words"},
	"inject:17": {"bget", "jname=vma' OR '1'='1"},
}

// TestRecordings replays what was recorded from the real cbsd and compares exit
// status, standard output and standard error.
func TestRecordings(t *testing.T) {
	dir := recordingsDir(t)
	w := newWorld(t)
	skipped := map[string]bool{}
	for _, name := range recordings {
		for _, r := range readRecording(t, filepath.Join(dir, name+".txt"), name) {
			skipped[r.id] = notCovered[r.id] != ""
			w.before(r.id)
			t.Run(r.id, func(t *testing.T) {
				if why := notCovered[r.id]; why != "" {
					t.Skipf("%s: %s", r.line, why)
				}
				got := w.run(r)
				if diff := cmp.Diff(normal(r), normal(got)); diff != "" {
					t.Errorf("cbsd %s (-real +simulated):\n%s", r.line, diff)
				}
			})
		}
	}
	for id := range notCovered {
		if !skipped[id] {
			t.Errorf("no recorded command %s to be left out", id)
		}
	}
}

func recordingsDir(t *testing.T) string {
	if runtime.GOOS != "linux" {
		t.Skip("the recordings are of a Linux machine")
	}
	dir := os.Getenv("CBSDMQ_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "cbsd", "transcripts")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("NOT COMPARED WITH THE REAL CBSD: no recordings in %s; CBSDMQ_RECORDINGS names their directory", dir)
	}
	return dir
}

var (
	blockHead = regexp.MustCompile(`^\$ env workdir=/(\w+) NOCOLOR=1 NOINTER=1 cbsd ?(.*)$`)
	blockCode = regexp.MustCompile(`^--- rc=(\d+) `)
)

func readRecording(t *testing.T, file, name string) []recorded {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	var out *string
	for line := range strings.Lines(string(data)) {
		if m := blockHead.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			all = append(all, recorded{id: fmt.Sprintf("%s:%d", name, len(all)+1), pool: m[1], line: m[2]})
			out = nil
			continue
		}
		if len(all) == 0 {
			continue
		}
		r := &all[len(all)-1]
		switch m := blockCode.FindStringSubmatch(line); {
		case m != nil && out == nil:
			r.code, _ = strconv.Atoi(m[1])
		case line == "--- stdout\n":
			out = &r.stdout
		case line == "--- stderr\n":
			out = &r.stderr
		case line == "===\n":
			out = nil
		case out != nil:
			*out += line
		}
	}
	if len(all) == 0 {
		t.Fatalf("no commands in %s", file)
	}
	return all
}

// A world has the two pools of the recordings.
type world struct {
	t   *testing.T
	dir string
}

func newWorld(t *testing.T) *world {
	w := &world{t, t.TempDir()}
	for i, pool := range []string{"pool1", "pool2"} {
		if err := Init(filepath.Join(w.dir, pool), fmt.Sprintf("node%d.cbsd.local", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) run(r recorded) recorded {
	args, ok := words[r.id]
	if !ok {
		args = strings.Split(r.line, " ")
	}
	for i, a := range args {
		args[i] = strings.Replace(a, "/pool1/", w.dir+"/pool1/", 1)
	}
	var out, errw bytes.Buffer
	env := []string{"workdir=" + w.path(r.pool), "NOCOLOR=1", "NOINTER=1"}
	got := recorded{id: r.id, pool: r.pool, line: r.line, code: Main(args, env, &out, &errw)}
	got.stdout = strings.ReplaceAll(out.String(), w.dir, "")
	got.stderr = strings.ReplaceAll(errw.String(), w.dir, "")
	return got
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// before does what somebody did between the recorded commands.
func (w *world) before(id string) {
	w.t.Helper()
	limits := w.path("pool1", "etc", "qemu-default-default.conf")
	var err error
	switch id {
	case "qemu:1":
		w.cbsd("bcreate jname=vm2 vm_os_type=linux vm_os_profile=cloud-Debian-x86-12 vm_cpus=2 vm_ram=2g ci_ip4_addr=10.201.0.1")
	case "qemu:7":
		err = os.WriteFile(limits, []byte("vm_ram_min=\"256m\"\n"), 0o644)
	case "qemu:14":
		err = os.Remove(limits)
	case "misc:12": // there were no jails in the kernel
		err = os.Remove(w.path("pool1", JailDir, "jj1"))
	case "inject:1":
		err = Config{Evaluate: true}.Write(w.path("pool1"))
	case "move:1":
		err = Config{}.Write(w.path("pool1"))
		w.cbsd("bremove jname=1vm")
	case "move:2":
		for _, part := range []string{"jails-data/vma-data", "jails-system/vma"} {
			if e := copyTree(w.path("pool1", part), w.path("pool2", part)); e != nil {
				err = e
			}
		}
		if e := copyFile(w.path("pool1/jails-rcconf/rc.conf_vma"), w.path("pool2/jails-rcconf/rc.conf_vma"), 0o644); e != nil {
			err = e
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) cbsd(line string) {
	w.t.Helper()
	var out bytes.Buffer
	if code := Main(strings.Fields(line), []string{"workdir=" + w.path("pool1"), "NOINTER=1"}, &out, &out); code != 0 {
		w.t.Fatalf("cbsd %s: exit status %d\n%s", line, code, out.String())
	}
}

// What differs from run to run, and from machine to machine.
var changing = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`PID: \d+`), "PID: N"},
	{regexp.MustCompile(`jid: \d+`), "jid: N"},
	{regexp.MustCompile(`(?m)^(\S+ +)[1-9]\d*( .*\bOn\b)`), "${1}N$2"},
	{regexp.MustCompile(`\b59[0-8]\d\b`), "59NN"},
	{regexp.MustCompile(`-vnc ([\d.]+):\d+`), "-vnc $1:N"},
	{regexp.MustCompile(`ifname=tap\d+`), "ifname=tapN"},
	{regexp.MustCompile(`in \d+ seconds`), "in N seconds"},
	{regexp.MustCompile(`00:a0:98(:[0-9a-f]{2}){3}`), "MAC"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\b1[789]\d{8}\b`), "TIME"},
	{regexp.MustCompile(`"created": "[-0-9T:]+"`), `"created": "TIME"`},
	{regexp.MustCompile(`created at: \d{8}`), "created at: DATE"},
	{regexp.MustCompile(`created on node: \S+`), "created on node: NODE"},
	{regexp.MustCompile(`flat size: \S+, images size (\S+): \S+`), "flat size: SIZE, images size $1: SIZE"},
	{regexp.MustCompile(`(Image size|after extracting): \S+`), "$1: SIZE"},
	{regexp.MustCompile(`(?m)^( +total CPU core's:).*`), "$1 N"},
	{regexp.MustCompile(`WIP: \[.*\]`), "WIP: [...]"},
	{regexp.MustCompile(`  +`), "  "}, // columns are as wide as what is in them
}

// Noise of the tools that the lab had in place of FreeBSD's.
var noise = regexp.MustCompile(`(?m)^(sysctl: |description: |ifconfig: |\[: -ne|/bin/stat: |/bin/tar: |/bin/rm: |Try '/bin/tar|` +
	`/usr/local/cbsd/jailctl/jexport: arithmetic|mount: |  +dmesg\(1\)|WIP: ).*\n`)

func normal(r recorded) map[string]string {
	text := func(s string) string {
		for _, c := range changing {
			s = c.what.ReplaceAllString(s, c.with)
		}
		return s
	}
	return map[string]string{
		"code":   strconv.Itoa(r.code),
		"stdout": text(r.stdout),
		"stderr": text(noise.ReplaceAllString(r.stderr, "")),
	}
}
