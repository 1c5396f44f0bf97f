package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// docBlock is a block of commands in a page of docs, with its mark in front:
//
//	<!-- run: NAME -->        a transcript runs it by that name
//	<!-- not run: WHY -->     it needs what no test has
var docBlock = regexp.MustCompile("(?m)(?:^<!-- (run|not run): (.+) -->\n)?^```sh\n((?:.*\n)*?)```$")

// doc runs a block of a page as a person would type it, below the site's
// directory: service, sysrc and pkg are stand-ins, and the places of a FreeBSD
// host are those of the site. `doc PAGE all` fails where the transcript has left
// a block of the page out.
func (s *site) doc(ts *testscript.TestScript, args []string) error {
	page, name := args[0], args[1]
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		return err
	}
	for i, m := range docBlock.FindAllStringSubmatch(string(text), -1) {
		mark := page + "/" + m[2]
		switch {
		case m[1] == "":
			return fmt.Errorf("%s: block %d has no mark: %s", page, i+1, m[3])
		case m[1] == "not run":
		case name == "all":
			if !slices.Contains(s.docs, mark) {
				return fmt.Errorf("%s: %s was not run", page, m[2])
			}
		case m[2] == name:
			s.docs = append(s.docs, mark)
			return s.typed(ts, m[3])
		}
	}
	if name == "all" {
		return nil
	}
	return fmt.Errorf("%s has no block %s", page, name)
}

// typed runs commands of a page.
func (s *site) typed(ts *testscript.TestScript, commands string) error {
	if err := s.host(); err != nil {
		return err
	}
	replace := []string{
		"/usr/local/", s.path("root/usr/local") + "/", "/var/", s.path("root/var") + "/", "/etc/rc.conf", s.path("root/etc/rc.conf"),
		"/tmp/", ts.Getenv("TMPDIR") + "/",
	}
	if s.broker != nil {
		replace = append(replace, "127.0.0.1:11300", s.broker.Addr, "10.0.0.7:11300", s.broker.Addr, " 10.0.0.7", " "+ts.Getenv("BROKER_HOST"))
	}
	for _, pool := range []string{"/pool1", "/pool2"} {
		for _, after := range []string{"/", "\n", " ", `"`, "'"} {
			replace = append(replace, " "+pool+after, " "+s.path(pool)+after, `"`+pool+after, `"`+s.path(pool)+after, "="+pool+after, "="+s.path(pool)+after)
		}
	}
	replace = append(replace, "cloud-Debian-x86-12", "cloud-lab-tiny") // what the simulator's mirror has
	script := s.path("typed.sh")
	if err := os.WriteFile(script, []byte(typedFirst+strings.NewReplacer(replace...).Replace(commands)), 0o644); err != nil {
		return err
	}
	path := ts.Getenv("PATH")
	defer ts.Setenv("PATH", path)
	ts.Setenv("PATH", strings.Join([]string{s.path("root/usr/local/bin"), filepath.Join(ts.Getenv("DIST"), "testdata/bin"), path}, string(filepath.ListSeparator)))
	return ts.Exec("sh", script)
}

// typedFirst is what a FreeBSD host would do without being told.
const typedFirst = `set -e
cbsdmq() {
	case $1 in
	init) command cbsdmq "$@" --initenv "$(command -v initenv)" ;;
	warm) command cbsdmq "$@" --floor 0 ;;
	*) command cbsdmq "$@" ;;
	esac
}
`

// tune points the file that init wrote to what the site has.
func (s *site) tune(_ *testscript.TestScript, args []string) error {
	file := s.path(etc, args[0]+".json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c map[string]any
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	s.workdirs = append(s.workdirs, s.path(args[0]))
	c["cbsd"], c["state_dir"], c["logfile"] = s.cbsd, s.path("state"), filepath.Join(s.logs, args[0]+".log")
	delete(c, "run_dir")
	section, _ := c["beanstalkd"].(map[string]any)
	if section == nil {
		return fmt.Errorf("%s names no beanstalkd: %s", file, text)
	}
	section["uri"] = s.broker.Addr
	if text, err = json.MarshalIndent(c, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// host puts on the host what is not in a package: the rc scripts' surroundings, and
// where cbsdmq does not come as one, what that would bring.
func (s *site) host() error {
	share := s.path("root/usr/local/share/examples/cbsdmq")
	if _, err := os.Stat(share); err == nil {
		return nil
	}
	for _, name := range []string{"cbsdmq", "cbsdmq_runner", "cbsdmq_broker"} {
		if _, err := s.installService(name); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(share, 0o755); err != nil || s.packed {
		return err
	}
	samples, err := filepath.Abs("../../dist/samples")
	if err != nil {
		return err
	}
	return os.Symlink(samples, filepath.Join(share, "jobs"))
}

// original puts the rc script and the program of an original agent on the host:
// it keeps to its file and takes nothing.
func (s *site) original(_ *testscript.TestScript, args []string) error {
	if err := s.host(); err != nil {
		return err
	}
	script := s.path("root/usr/local/etc/rc.d", args[0])
	return testserver.WriteScript(script, "#!/bin/sh\necho \"original $1\"\n")
}

// A translation has the same commands.
func TestTranslation(t *testing.T) {
	var blocks [2][]string
	for i, page := range []string{"WALKTHROUGH.md", "WALKTHROUGH.ru.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		blocks[i] = docBlock.FindAllString(string(text), -1)
	}
	if len(blocks[0]) == 0 || !slices.Equal(blocks[0], blocks[1]) {
		t.Errorf("WALKTHROUGH.md has the blocks\n%q\nits translation\n%q", blocks[0], blocks[1])
	}
}
