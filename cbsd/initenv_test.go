package cbsd

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// environment is one that the simulator's initenv makes, on a host of its own.
func environment(t *testing.T, b cbsdsim.InitBehaviour) Environment {
	t.Helper()
	root := t.TempDir()
	for file, text := range map[string]string{
		"etc/rc.conf":                                  "hostname=\"h1\"\ncbsd_workdir=\"/usr/jails\"\n",
		"etc/sysctl.conf":                              "kern.x=1\n",
		"etc/passwd":                                   "root:*:0:0::/root:/bin/sh\ncbsd:*:150:150::/usr/jails:/bin/sh\n",
		"etc/resolv.conf":                              "nameserver 192.0.2.53\nnameserver 2001:db8::53\n",
		"usr/local/etc/sudoers.d/10_other":             "other ALL=(ALL) ALL\n",
		"usr/local/etc/rc.d/other":                     "#!/bin/sh\n",
		"usr/lib/systemd/system/x.service":             "[Unit]\n",
		"etc/cron.d/x":                                 "# nothing\n",
		"etc/systemd/system/multi-user.target.wants/x": "",
		"etc/systemd/system/cbsdd.service.d/x":         "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(root, "initenv")); err != nil {
		t.Fatal(err)
	}
	e := Environment{Dir: filepath.Join(root, "pool1"), Nodename: "pool1.example.org", Initenv: filepath.Join(root, "initenv"), Limit: time.Minute, Root: root}
	behaveInit(t, e, b)
	return e
}

func behaveInit(t *testing.T, e Environment, b cbsdsim.InitBehaviour) {
	t.Helper()
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.Dir+".initenv.json", text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInit(t *testing.T) {
	t.Parallel()
	e := environment(t, cbsdsim.InitBehaviour{Exit: 1}) // a status is a claim in this direction, too
	var out bytes.Buffer
	e.Out = &out
	m, err := Init(t.Context(), e)
	if err != nil || m.Already || m.Node != "pool1.example.org" || len(m.Changed) > 0 || !strings.Contains(out.String(), "Stage 9") {
		t.Fatalf("%+v, %v\n%s", m, err, &out)
	}
	if exists(filepath.Join(e.Dir, unfinished)) {
		t.Error("the mark of an unfinished environment stays")
	}
	p := openPool(t, Config{CBSD: filepath.Join(e.Root, "initenv"), Workdir: e.Dir, RunDir: filepath.Join(e.Root, "run")})
	if r := p.Probe(t.Context()); r.Err() != nil {
		t.Errorf("%+v", r)
	}
	behaveInit(t, e, cbsdsim.InitBehaviour{Loop: true}) // it is not run again
	if m, err := Init(t.Context(), e); err != nil || !m.Already || m.Node != "pool1.example.org" {
		t.Errorf("again: %+v, %v", m, err)
	}
}

func TestInitSettings(t *testing.T) {
	e := environment(t, cbsdsim.InitBehaviour{})
	e.Set = []string{"jnameserver=192.0.2.1", "pre_cbsd_cmd_path=/usr/local/x"}
	text := e.settings(true)
	for _, line := range append([]string{"nat_enable", "ipfw_enable", "sqlreplica"}, switches...) {
		if !strings.Contains(text, "\n"+line+"=\"0\"\n") {
			t.Errorf("%s is not off:\n%s", line, text)
		}
	}
	if !strings.Contains(text, "\nfirst_init=\"0\"\n") {
		t.Errorf("initenv would restart the host's cbsdd:\n%s", text)
	}
	if len(switches) != 9 || !strings.Contains(text, "\nzfsfeat=\"1\"\n") || !strings.Contains(text, `jnameserver="192.0.2.53,2001:db8::53"`) ||
		strings.Index(text, `jnameserver="192.0.2.1"`) < strings.Index(text, `jnameserver="192.0.2.53`) {
		t.Errorf("%d switches:\n%s", len(switches), text)
	}
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	e := environment(t, cbsdsim.InitBehaviour{})
	if err := os.Mkdir(e.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(e.Dir, "data"), 1)
	if err := os.Symlink(e.Dir, e.Dir+"link"); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*Environment)
		want   string
	}{
		"not empty":          {func(*Environment) {}, "is not empty and not an environment: it has data"},
		"relative":           {func(e *Environment) { e.Dir = "pool1" }, "not a path that CBSD can work in"},
		"space":              {func(e *Environment) { e.Dir += " 1" }, "not a path that CBSD can work in"},
		"upwards":            {func(e *Environment) { e.Dir += "/../x" }, "not a path that CBSD can work in"},
		"link":               {func(e *Environment) { e.Dir += "link" }, "is a link"},
		"main":               {func(e *Environment) { e.Dir = "/usr/jails" }, "main environment"},
		"no parent":          {func(e *Environment) { e.Dir += "x/y" }, "no such file"},
		"no CBSD":            {func(e *Environment) { e.Initenv += "x" }, "there is no"},
		"nodename":           {func(e *Environment) { e.Nodename = "a b" }, "not the name of a node"},
		"shell in a setting": {func(e *Environment) { e.Set = []string{"repo=$(reboot)"} }, "not NAME=VALUE"},
		"a switch":           {func(e *Environment) { e.Set = []string{"initenv_modify_sudoers=1"} }, "not NAME=VALUE"},
	} {
		bad := e
		c.change(&bad)
		_, err := Init(t.Context(), bad)
		if cbsdmq.CodeOf(err) != cbsdmq.CodeRefused || !strings.Contains(err.Error(), c.want) || cbsdmq.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q", what, err, cbsdmq.HintOf(err))
		}
	}
	if entries, _ := os.ReadDir(e.Dir); len(entries) != 1 {
		t.Errorf("a refused directory was changed: %v", entries)
	}
}

// A script that stops half way ends with status 0; done again, it goes on.
func TestInitHalf(t *testing.T) {
	t.Parallel()
	e := environment(t, cbsdsim.InitBehaviour{Half: true})
	_, err := Init(t.Context(), e)
	if err == nil || !strings.Contains(err.Error(), "there is no nc.inventory") || !strings.Contains(err.Error(), "[Stage 5") {
		t.Errorf("half: %v", err)
	}
	behaveInit(t, e, cbsdsim.InitBehaviour{})
	if m, err := Init(t.Context(), e); err != nil || m.Already {
		t.Errorf("again: %+v, %v", m, err)
	}
	if err := os.Remove(filepath.Join(e.Dir, "var/db/storage_media.sqlite")); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), e); err == nil || !strings.Contains(err.Error(), "var/db/storage_media.sqlite has no table media") {
		t.Errorf("not whole: %v", err)
	}
}

func TestInitLoops(t *testing.T) {
	t.Parallel()
	e := environment(t, cbsdsim.InitBehaviour{Loop: true})
	for e.Limit = 300 * time.Millisecond; ; e.Limit *= 4 {
		_, err := Init(t.Context(), e)
		if err == nil || !strings.Contains(err.Error(), "had not ended after "+e.Limit.String()) {
			t.Fatalf("%v", err)
		}
		if strings.Contains(err.Error(), "Please set nodename:") {
			break
		}
		if e.Limit > time.Minute { // which is enough to begin on any machine
			t.Fatalf("what it printed is not told: %v", err)
		}
	}
}

func TestInitChangesHost(t *testing.T) {
	t.Parallel()
	e := environment(t, cbsdsim.InitBehaviour{})
	for touched, want := range map[string]string{
		"etc/rc.conf":     "/etc/rc.conf: changed, the line of cbsd_workdir",
		"etc/sysctl.conf": "/etc/sysctl.conf: new, the line of cbsd_workdir",
		"usr/local/etc/sudoers.d/10_cbsd_sudoers":         "/usr/local/etc/sudoers.d/10_cbsd_sudoers: a new file",
		"usr/local/etc/rc.d/cbsdrsyncd":                   "/usr/local/etc/rc.d/cbsdrsyncd: a new file",
		"etc/cron.d/cbsd":                                 "/etc/cron.d/cbsd: a new file",
		"etc/systemd/system/cbsdd.service.d/10.conf":      "/etc/systemd/system/cbsdd.service.d/10.conf: a new file",
		"etc/systemd/system/multi-user.target.wants/cbsd": "/etc/systemd/system/multi-user.target.wants/cbsd: a new file",
		"lib/systemd/system/cbsdd.service":                "/usr/lib/systemd/system/cbsdd.service: a new file", // once: /lib is a link
	} {
		e.Dir = filepath.Join(e.Root, strings.ReplaceAll(touched, "/", "-"))
		behaveInit(t, e, cbsdsim.InitBehaviour{Touch: filepath.Join(e.Root, touched)})
		m, err := Init(t.Context(), e)
		if err != nil || len(m.Changed) != 1 || m.Changed[0] != want {
			t.Errorf("%s: %q, %v", touched, m.Changed, err)
		}
	}
}

// What initenv does to a host on Linux without asking, as CBSD 14.1.3a has it.
const meddling = `#!/bin/sh
ROOT=ROOT_OF_HOST
WHICH_CMD=$( which which )
[ -z "$cbsd_workdir" ] && . $ROOT/etc/rc.conf
[ "$cbsd_workdir" = "$workdir" ] || echo "$cbsd_workdir" > $ROOT/etc/fstab
PATH=$ROOT/bin:/bin:/usr/bin           # cbsd.conf sets it anew
$( $WHICH_CMD usermod ) -d $workdir cbsd
SYSTEMCTL_CMD=$( $WHICH_CMD systemctl )
first_init=1
. $2                                   # phase 5
if [ $( cat $ROOT/etc/rc.conf $workdir/rc.conf | grep -c ^cbsdd_enable= ) = 0 ]; then
	echo 'cbsdd_enable="NO"' >> $ROOT/etc/rc.conf
elif [ -n "$SYSTEMCTL_CMD" ]; then
	echo unit > $ROOT/lib/systemd/system/cbsdd.service
	$SYSTEMCTL_CMD enable cbsdd.service
fi
[ $first_init = 1 ] && echo restarted > $ROOT/etc/crontab
exec $ROOT/initenv "$@"
`

// There is no switch for these.
func TestInitMeddles(t *testing.T) {
	t.Parallel()
	e := environment(t, cbsdsim.InitBehaviour{})
	e.Initenv = filepath.Join(e.Root, "initenv.sh")
	wants := filepath.Join(e.Root, "etc/systemd/system/multi-user.target.wants/cbsdd.service")
	for file, text := range map[string]string{
		e.Initenv:                              strings.ReplaceAll(meddling, "ROOT_OF_HOST", e.Root),
		filepath.Join(e.Root, "bin/systemctl"): "#!/bin/sh\nln -s /lib/systemd/system/cbsdd.service " + wants + "\n",
		filepath.Join(e.Root, "bin/usermod"):   "#!/bin/sh\necho cbsd:home >> " + e.Root + "/etc/passwd\n",
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"pool1", "pool2"} {
		e.Dir = filepath.Join(e.Root, name)
		if m, err := Init(t.Context(), e); err != nil || len(m.Changed) > 0 {
			t.Errorf("%s: %q, %v", name, m.Changed, err)
		}
	}
}

// Without what keeps it from that, all of it is told.
func TestHostChanges(t *testing.T) {
	t.Parallel()
	e := environment(t, cbsdsim.InitBehaviour{})
	before := readHost(e.Root)
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(e.Root, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/rc.conf", "cbsd_workdir=\"/x\"\ncbsdd_enable=\"NO\"\nb=1\n")
	write("etc/passwd", "root:*:0:0::/root:/bin/sh\ncbsd:*:150:150::/pool1:/bin/sh\n")
	write("etc/cron.d/x", "# something\n")
	write("etc/hostname", "")
	if err := os.Symlink("/lib/systemd/system/cbsdd.service", filepath.Join(e.Root, "etc/systemd/system/multi-user.target.wants/cbsdd.service")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(e.Root, "etc/sysctl.conf")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/etc/cron.d/x: changed, but no line with a name: comments, the order, or lines of another form",
		"/etc/hostname: a new file, empty",
		"/etc/passwd: changed, the line of cbsd",
		"/etc/rc.conf: changed, the line of cbsd_workdir; new, the lines of b, cbsdd_enable; gone, the line of hostname",
		"/etc/sysctl.conf: removed",
		"/etc/systemd/system/multi-user.target.wants/cbsdd.service: a new link to /lib/systemd/system/cbsdd.service",
	}
	if got := before.changes(readHost(e.Root)); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
