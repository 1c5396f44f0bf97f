package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
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
		replace = append(replace, "127.0.0.1:11300", s.broker.Addr)
	}
	for _, pool := range []string{"/pool1", "/pool2"} {
		for _, after := range []string{"/", "\n", " ", `"`, "'"} {
			replace = append(replace, " "+pool+after, " "+s.path(pool)+after, `"`+pool+after, `"`+s.path(pool)+after, "="+pool+after, "="+s.path(pool)+after)
		}
	}
	script := s.path("typed.sh")
	if err := os.WriteFile(script, []byte("set -e\n"+strings.NewReplacer(replace...).Replace(commands)), 0o644); err != nil {
		return err
	}
	path := ts.Getenv("PATH")
	defer ts.Setenv("PATH", path)
	ts.Setenv("PATH", s.path("root/stand-in")+string(filepath.ListSeparator)+path)
	return ts.Exec("sh", script)
}

// host makes the stand-ins for what FreeBSD has and the test's host has not.
func (s *site) host() error {
	dir := s.path("root/stand-in")
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	for _, name := range []string{"cbsdmq", "cbsdmq_runner", "cbsdmq_broker"} {
		if _, err := s.installService(name); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rc := s.path("root/etc/rc.conf")
	for name, text := range map[string]string{
		"service": `script=` + s.path("root/usr/local/etc/rc.d") + `/$1; shift; exec sh $script "$@"`,
		"sysrc":   `for v; do echo "${v%%=*}=\"${v#*=}\"" >> ` + rc + `; done`,
		"pkg":     `exit 0`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// original puts the rc script and the program of an original agent on the host:
// it keeps to its file and takes nothing.
func (s *site) original(_ *testscript.TestScript, args []string) error {
	if err := s.host(); err != nil {
		return err
	}
	script := s.path("root/usr/local/etc/rc.d", args[0])
	return os.WriteFile(script, []byte("#!/bin/sh\necho \"original $1\"\n"), 0o755)
}
