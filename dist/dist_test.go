// Package dist holds what is installed beside the program. The test loads the
// sample configurations and checks the scripts.
package dist

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func TestSampleConfigurations(t *testing.T) {
	files, err := filepath.Glob("sample/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, file := range files {
		c, warnings, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := c.ValidateAgent(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, w := range warnings {
			t.Errorf("%s", w)
		}
	}
}

func TestSampleCluster(t *testing.T) {
	names := make(map[string]bool)
	var routes []string
	for _, file := range []string{"host1", "host2", "host3"} {
		text, err := os.ReadFile("sample/cluster/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		b, err := config.ParseBroker(file, text)
		if err != nil {
			t.Fatal(err)
		}
		names[b.Name] = true
		if !slices.Contains(b.Cluster.Routes, b.Cluster.Listen) || routes != nil && !slices.Equal(routes, b.Cluster.Routes) {
			t.Errorf("%s: listens at %s, routes %v", file, b.Cluster.Listen, b.Cluster.Routes)
		}
		routes = b.Cluster.Routes
	}
	if len(names) != 3 {
		t.Errorf("the servers are called %v", names)
	}
	text, err := os.ReadFile("sample/cluster/pool1.json")
	if err != nil {
		t.Fatal(err)
	}
	pool, warnings, err := config.Parse("pool1", text)
	if err == nil {
		err = pool.ValidateAgent()
	}
	if err != nil || len(warnings) > 0 {
		t.Errorf("pool1: %v, %v", err, warnings)
	}
}

// shells are the scripts of the repository that sh runs.
var shells = []string{"rc.d/*", "*.sh", "samples/bin.*/*", "samples/wire/*.sh", "testdata/rc.subr", "testdata/daemon", "testdata/bin/*", "../test.sh", "../internal/testserver/*.sh"}

func TestScriptsParse(t *testing.T) {
	for _, pattern := range shells {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Errorf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			if out, err := exec.CommandContext(t.Context(), "sh", "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		}
	}
}

// The rc scripts of the originals start /usr/local/sbin/bs_router and
// /usr/local/sbin/cbsd-mq-router; the client lies in /usr/local/bin.
func TestInstallLinks(t *testing.T) {
	prefix := t.TempDir()
	install := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), "sh", "install-links.sh", prefix).CombinedOutput()
		return string(out), err
	}
	if out, err := install(); err == nil || !strings.Contains(out, "bin/cbsdmq is not there") {
		t.Errorf("without cbsdmq: %v, %s", err, out)
	}
	if err := os.Mkdir(filepath.Join(prefix, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(prefix, "bin", "cbsdmq")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nbasename $0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if out, err := install(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, name := range []string{"sbin/bs_router", "sbin/cbsd-mq-router", "bin/bs_router-client"} {
			out, err := exec.CommandContext(t.Context(), filepath.Join(prefix, name)).Output()
			if err != nil || strings.TrimSpace(string(out)) != filepath.Base(name) {
				t.Errorf("%s: %v, %s", name, err, out)
			}
		}
	}
	original := filepath.Join(prefix, "sbin", "bs_router")
	if err := os.Remove(original); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(original, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := install(); err == nil || !strings.Contains(out, "is not a link: left alone") {
		t.Errorf("over an original: %v, %s", err, out)
	}
}

// The page about the wire shows the examples as they are.
func TestWireExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/WIRE.md")
	if err != nil {
		t.Fatal(err)
	}
	for language, file := range map[string]string{"sh": "submit.sh", "python": "submit.py", "php": "submit.php"} {
		text, err := os.ReadFile("samples/wire/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "```"+language+"\n"+string(text)+"```\n") {
			t.Errorf("docs/WIRE.md does not show samples/wire/%s as it is", file)
		}
	}
}

// What make would do: its parts are tested where they are.
func TestMakefile(t *testing.T) {
	testserver.Require(t, "make", "apt-get install make (Debian); FreeBSD has it")
	out, err := exec.CommandContext(t.Context(), "make", "-n", "-C", "..", "release", "VERSION=1.2.3").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"-o build/freebsd-arm64/cbsdmq", "-X main.release=1.2.3", "FreeBSD-$release-amd64/cbsdmq-1.2.3.pkg", "> SHA256"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not do %q", want)
		}
	}
}
