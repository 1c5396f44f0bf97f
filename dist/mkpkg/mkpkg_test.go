package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/cbsd/cbsdmq/internal/freebsdpkg"
)

// generated is what the Makefile has the program write before.
func generated(t *testing.T) (program, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"man/cbsdmq.1", "man/cbsdmq.json.5", "completion.bash", "completion.zsh", "completion.fish", "cbsdmq"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cbsdmq"), dir
}

func mkpkg(t *testing.T, args ...string) {
	t.Helper()
	program, dir := generated(t)
	if err := run(append(args, "-C", "../..", "-generated", dir, "-program", program)); err != nil {
		t.Fatal(err)
	}
}

// members reads a tar file.
func members(t *testing.T, r io.Reader) (names []string, text map[string][]byte, mode map[string]int64) {
	t.Helper()
	text, mode = make(map[string][]byte), make(map[string]int64)
	for r := tar.NewReader(r); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, text, mode
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		text[h.Name], mode[h.Name] = data, h.Mode
	}
}

func TestPackage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new/cbsdmq.pkg")
	mkpkg(t, "pkg", "-abi", "FreeBSD:15:amd64", "-version", "v1.2.3-rc1", "-o", out)
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	names, text, mode := members(t, z)
	var manifest struct {
		Name, Version, ABI string
		Files              map[string]string
		Scripts            map[string]string
	}
	if err := json.Unmarshal(text["+MANIFEST"], &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Version != "1.2.3.r1" || manifest.ABI != "FreeBSD:15:amd64" {
		t.Errorf("version %s for %s", manifest.Version, manifest.ABI)
	}
	for name, want := range map[string]int64{
		"/usr/local/bin/cbsdmq": 0o755, "/usr/local/etc/rc.d/cbsdmq": 0o555, "/usr/local/etc/rc.d/cbsdmq_runner": 0o555,
		"/usr/local/etc/rc.d/cbsdmq_broker": 0o555, "/usr/local/etc/newsyslog.conf.d/cbsdmq.conf.sample": 0o644,
		"/usr/local/share/man/man1/cbsdmq.1.gz": 0o444, "/usr/local/share/man/man5/cbsdmq.json.5.gz": 0o444,
		"/usr/local/share/bash-completion/completions/cbsdmq": 0o444, "/usr/local/share/doc/cbsdmq/docs/OPERATING.md": 0o444,
		"/usr/local/share/examples/cbsdmq/jobs/bin.bhyve/bcreate": 0o555,
	} {
		if mode[name] != want || manifest.Files[name] == "" {
			t.Errorf("%s: mode %o, want %o; sum %q", name, mode[name], want, manifest.Files[name])
		}
	}
	// What the package does not have, deleting it leaves alone.
	for _, name := range names {
		if strings.Contains(name, "/var/") || strings.HasSuffix(name, ".json") && strings.Contains(name, "/etc/") {
			t.Errorf("the package has %s", name)
		}
	}
	if len(manifest.Files) != len(names)-3 { // two manifests, one directory
		t.Errorf("%d files in the manifest, members are %s", len(manifest.Files), names)
	}
}

// The port lists the same files, but those that its framework finds.
func TestPortList(t *testing.T) {
	program, dir := generated(t)
	files, err := contents("../..", program, dir)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range files {
		name := strings.TrimPrefix(f.Path, prefix+"/")
		if _, is := samples[name]; is {
			name = "@sample " + name
		}
		if !strings.HasPrefix(name, "share/man/") && !strings.HasPrefix(name, "share/doc/") && !strings.HasPrefix(name, "share/examples/") {
			want = append(want, name)
		}
	}
	for _, dir := range directories {
		want = append(want, "@dir "+dir)
	}
	list, err := os.ReadFile("../port/sysutils/cbsdmq/pkg-plist")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSpace(string(list)), "\n"); !slices.Equal(got, want) {
		t.Errorf("pkg-plist has\n%s\nthe package\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSameBytes(t *testing.T) {
	for kind, args := range map[string][]string{
		"pkg": {"-abi", "FreeBSD:14:amd64", "-version", "1.0"},
		"tar": {"-version", "1.0-linux-amd64"},
	} {
		var first []byte
		for range 2 {
			out := filepath.Join(t.TempDir(), "out")
			mkpkg(t, append([]string{kind, "-o", out}, args...)...)
			data, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if first != nil && !bytes.Equal(first, data) {
				t.Errorf("%s: the same files, other bytes", kind)
			}
			first = data
		}
	}
}

func TestTar(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	mkpkg(t, "tar", "-version", "1.0-linux-amd64", "-o", out)
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	_, text, mode := members(t, z)
	if name := "cbsdmq-1.0-linux-amd64/bin/cbsdmq"; string(text[name]) != "cbsdmq\n" || mode[name] != 0o755 {
		t.Errorf("the program: %q, mode %o", text[name], mode[name])
	}
}

// Installed and deleted by its scripts: what was changed stays.
func TestSamples(t *testing.T) {
	root := t.TempDir()
	mkpkg(t, "stage", "-o", root)
	conf := filepath.Join(root, "usr/local/etc/newsyslog.conf.d/cbsdmq.conf")
	script := func(name string) string {
		t.Helper()
		sh := exec.CommandContext(t.Context(), "sh", "-c", of(freebsdpkg.Package{}).Scripts[name])
		sh.Env = append(os.Environ(), "PKG_ROOTDIR="+root)
		out, err := sh.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return string(out)
	}
	script("post-install")
	if _, err := os.Stat(conf); err != nil {
		t.Fatal(err)
	}
	script("pre-deinstall")
	if _, err := os.Stat(conf); err == nil {
		t.Error("a file as it was installed is left behind")
	}
	if err := os.WriteFile(conf, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script("post-install")
	if out := script("pre-deinstall"); !strings.Contains(out, "was changed: it stays") {
		t.Errorf("deleted: %q", out)
	}
	if text, err := os.ReadFile(conf); err != nil || string(text) != "mine\n" {
		t.Errorf("a changed file: %q, %v", text, err)
	}
}
