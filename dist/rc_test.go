package dist

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// What daemon(8) is told to run, by which rc.conf and which files.
func TestAgentsThatAreStarted(t *testing.T) {
	for name, test := range map[string]struct {
		rc    string
		files []string
		want  []string // what follows `cbsdmq agent`
	}{
		"every file":         {`cbsdmq_enable="YES"`, []string{"cbsdmq/pool2.json", "cbsdmq/pool1.json"}, []string{"--config cbsdmq/pool1.json", "--config cbsdmq/pool2.json"}},
		"those named":        {`cbsdmq_enable="YES"; cbsdmq_pools="pool2"`, []string{"cbsdmq/pool2.json", "cbsdmq/pool1.json"}, []string{"--config cbsdmq/pool2.json"}},
		"a path":             {`cbsdmq_enable="YES"; cbsdmq_pools="$ROOT/usr/local/etc/x.json"`, []string{"x.json"}, []string{"--config x.json"}},
		"not enabled":        {``, []string{"cbsdmq/pool1.json"}, nil},
		"bs_router":          {`bs_router_enable="YES"`, []string{"cbsdmq.json"}, []string{"--config cbsdmq.json"}},
		"bs_router_args":     {`bs_router_enable="YES"; bs_router_args="-config $ROOT/usr/local/etc/my.json -cbsdenv /usr/jails"`, []string{"my.json"}, []string{"--config my.json --cbsdenv /usr/jails"}},
		"args with =":        {`bs_router_enable="YES"; bs_router_args="-broker=beanstalkd --config=$ROOT/usr/local/etc/my.json"`, []string{"my.json"}, []string{"--config my.json --broker=beanstalkd"}},
		"cbsd-mq-router":     {`cbsd_mq_router_enable="YES"`, []string{"cbsd-mq-router.json"}, []string{"--config cbsd-mq-router.json"}},
		"its config":         {`cbsd_mq_router_enable="YES"; cbsd_mq_router_config="$ROOT/usr/local/etc/my.json"`, []string{"my.json"}, []string{"--config my.json"}},
		"its script there":   {`cbsd_mq_router_enable="YES"`, []string{"cbsd-mq-router.json", "rc.d/cbsd-mq-router"}, nil},
		"switched off":       {`bs_router_enable="YES"; cbsdmq_enable="NO"`, []string{"cbsdmq.json"}, nil},
		"a runner's service": {`cbsdmq_enable="YES"; cbsdmq_runner_enable="YES"`, []string{"cbsdmq/pool1.json"}, []string{"--config cbsdmq/pool1.json --await-runner"}},
		"bs_router and it":   {`bs_router_enable="YES"; bs_router_args="-config $ROOT/usr/local/etc/my.json -cbsdenv /usr/jails"; cbsdmq_runner_enable="YES"`, []string{"my.json"}, []string{"--config my.json --await-runner --cbsdenv /usr/jails"}},
		"its service is off": {`cbsdmq_enable="YES"; cbsdmq_runner_enable="NO"`, []string{"cbsdmq/pool1.json"}, []string{"--config cbsdmq/pool1.json"}},
		"both":               {`bs_router_enable="YES"; cbsdmq_enable="YES"`, []string{"cbsdmq/pool1.json", "cbsdmq.json"}, []string{"--config cbsdmq/pool1.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			script, err := testserver.RCScript(".", root, "cbsdmq")
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, "etc/rc.conf"), test.rc+"\n", 0o644)
			write(t, filepath.Join(root, "usr/sbin/daemon"), "#!/bin/sh\necho \"$@\" >> "+root+"/started\n", 0o755)
			for _, file := range test.files {
				write(t, filepath.Join(root, "usr/local/etc", file), "{}", 0o644)
			}
			if out, err := exec.CommandContext(t.Context(), "sh", script, "start").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			text, _ := os.ReadFile(filepath.Join(root, "started"))
			var got []string
			for line := range strings.Lines(string(text)) {
				_, args, _ := strings.Cut(line, "cbsdmq agent ")
				got = append(got, strings.Join(strings.Fields(strings.ReplaceAll(args, root+"/usr/local/etc/", "")), " "))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("started %q, want %q", got, test.want)
			}
		})
	}
}

// The agent's unit brings the runner's with it, so it starts no runner itself.
func TestAgentsUnitLeavesTheRunner(t *testing.T) {
	text, err := os.ReadFile("systemd/cbsdmq-agent@.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`(?m)^Wants=cbsdmq-runner\.service$`,
		`(?m)^After=.*\bcbsdmq-runner\.service\b`,
		`(?m)^ExecStart=/usr/local/bin/cbsdmq agent (.* )?--await-runner\b`,
	} {
		if !regexp.MustCompile(want).Match(text) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// A service makes the directories of its log and run files, and leaves one that
// is there as it is: it may be /var/log, or /dev of a log /dev/null.
func TestDirectoriesOfServices(t *testing.T) {
	for name, rc := range map[string]string{
		"cbsdmq":        `cbsdmq_enable="YES"; cbsdmq_logdir="$ROOT/shared"`,
		"cbsdmq_runner": `cbsdmq_runner_enable="YES"; cbsdmq_runner_dir="$ROOT/shared"; cbsdmq_runner_log="$ROOT/shared/out.log"`,
		"cbsdmq_broker": `cbsdmq_broker_enable="YES"; cbsdmq_broker_log="$ROOT/shared/out.log"`,
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			script, err := testserver.RCScript(".", root, name)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, "etc/rc.conf"), rc+"\n", 0o644)
			write(t, filepath.Join(root, "usr/sbin/daemon"), "#!/bin/sh\n", 0o755)
			write(t, filepath.Join(root, "usr/local/etc/cbsdmq/pool1.json"), "{}", 0o644)
			shared := filepath.Join(root, "shared")
			for _, there := range []bool{false, true} {
				if there {
					if err := os.Chmod(shared, 0o777); err != nil {
						t.Fatal(err)
					}
				}
				if out, err := exec.CommandContext(t.Context(), "sh", script, "start").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				info, err := os.Stat(shared)
				if err != nil {
					t.Fatal(err)
				}
				if open := info.Mode().Perm()&0o007 != 0; open != there {
					t.Errorf("there before: %v, its mode is %v", there, info.Mode())
				}
			}
		})
	}
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

var header = regexp.MustCompile(`(?m)^# (PROVIDE|REQUIRE|BEFORE|KEYWORD): (.+)$`)

// rcorder(8) puts what is provided after what it requires. The scripts of the
// system that matter here are given as their manual has them.
func TestOrderOfServices(t *testing.T) {
	after := map[string][]string{ // what must have started
		"jail":        {"LOGIN", "FILESYSTEMS"},
		"securelevel": {"jail"},
		"FILESYSTEMS": {"zfs"},
		"NETWORKING":  {"FILESYSTEMS"},
		"LOGIN":       {"NETWORKING"},
		"cbsdd":       {"LOGIN", "FILESYSTEMS"},
		"beanstalkd":  {"LOGIN"},
	}
	for _, name := range []string{"cbsdmq", "cbsdmq_runner", "cbsdmq_broker"} {
		text, err := os.ReadFile("rc.d/" + name)
		if err != nil {
			t.Fatal(err)
		}
		says := make(map[string][]string)
		for _, m := range header.FindAllStringSubmatch(string(text), -1) {
			says[m[1]] = strings.Fields(m[2])
		}
		if !slices.Equal(says["PROVIDE"], []string{name}) || !slices.Contains(says["KEYWORD"], "shutdown") {
			t.Errorf("%s: %v", name, says)
		}
		after[name] = append(after[name], says["REQUIRE"]...)
		for _, before := range says["BEFORE"] {
			after[before] = append(after[before], name)
		}
	}
	var follows func(a, b string, way []string) bool
	follows = func(a, b string, way []string) bool {
		if slices.Contains(way, a) {
			t.Fatalf("a circle: %v %s", way, a)
		}
		found := false
		for _, c := range after[a] {
			found = follows(c, b, append(slices.Clone(way), a)) || found || c == b
		}
		return found
	}
	for _, pair := range [][2]string{
		{"cbsdmq", "cbsdmq_runner"}, {"cbsdmq", "cbsdmq_broker"}, {"cbsdmq", "jail"}, {"cbsdmq", "cbsdd"}, {"cbsdmq", "zfs"},
		{"cbsdmq", "NETWORKING"}, {"cbsdmq_runner", "zfs"}, {"cbsdmq_broker", "NETWORKING"}, {"securelevel", "cbsdmq_runner"},
	} {
		if !follows(pair[0], pair[1], nil) {
			t.Errorf("%s does not start after %s", pair[0], pair[1])
		}
	}
}

// shellcheck takes what is sourced and what rc.subr reads for mistakes.
func TestShellcheck(t *testing.T) {
	testserver.Require(t, "shellcheck", "apt-get install shellcheck (Debian), pkg install hs-ShellCheck (FreeBSD)")
	var files []string
	for _, pattern := range shells {
		found, _ := filepath.Glob(pattern)
		files = append(files, found...)
	}
	args := append([]string{"--shell=sh", "--severity=warning", "--exclude=SC1090,SC1091,SC2034,SC2154"}, files...)
	if out, err := exec.CommandContext(t.Context(), "shellcheck", args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
