package freebsdpkg

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

func sample() Package {
	return Package{
		Name: "tool", Version: "1.2", Origin: "sysutils/tool", Comment: "a tool", Desc: "does 100% of the work, für alle",
		WWW: "https://example.org/", Maintainer: "ports@example.org", Categories: []string{"sysutils"}, License: "BSD2CLAUSE",
		ABI: "FreeBSD:14:aarch64", Prefix: "/usr/local",
		Files: []File{
			{"/usr/local/bin/tool", 0o755, []byte("program")},
			{"/usr/local/bin/a", 0o555, nil},
		},
		Directories: []string{"/usr/local/etc/tool"},
		Scripts:     map[string]string{"post-install": "date +%s\n"},
		Messages:    map[string]string{"remove": "gone", "install": "there"},
		Modified:    time.Unix(1_700_000_000, 0),
	}
}

func written(t *testing.T, p Package) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMembers(t *testing.T) {
	z, err := zstd.NewReader(bytes.NewReader(written(t, sample())))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	type member struct {
		Name, Text, Owner string
		Mode              int64
	}
	var got []member
	var manifests []map[string]any
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name[0] == '+' {
			var m map[string]any
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatal(err)
			}
			manifests = append(manifests, m)
			text = nil
		}
		got = append(got, member{h.Name, string(text), h.Uname + ":" + h.Gname, h.Mode})
	}
	if diff := cmp.Diff([]member{
		{"+COMPACT_MANIFEST", "", "root:wheel", 0o644}, {"+MANIFEST", "", "root:wheel", 0o644},
		{"/usr/local/bin/a", "", "root:wheel", 0o555}, {"/usr/local/bin/tool", "program", "root:wheel", 0o755},
		{"/usr/local/etc/tool/", "", "root:wheel", 0o755},
	}, got); diff != "" {
		t.Error(diff)
	}
	compact := map[string]any{
		"name": "tool", "version": "1.2", "origin": "sysutils/tool", "comment": "a tool", "desc": "does 100%25 of the work, f%c3%bcr alle",
		"www": "https://example.org/", "maintainer": "ports@example.org", "categories": []any{"sysutils"},
		"abi": "FreeBSD:14:aarch64", "arch": "freebsd:14:aarch64:64", "prefix": "/usr/local", "flatsize": 7.0, "licenselogic": "single", "licenses": []any{"BSD2CLAUSE"},
		"messages": []any{map[string]any{"message": "there", "type": "install"}, map[string]any{"message": "gone", "type": "remove"}},
	}
	if diff := cmp.Diff(compact, manifests[0]); diff != "" {
		t.Error(diff)
	}
	compact["files"] = map[string]any{
		"/usr/local/bin/a":    "1$e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"/usr/local/bin/tool": "1$1310ca2c8932dbd118668bd97442558a3e1f546b5e15c69699dfbd6024f548d8",
	}
	compact["directories"] = map[string]any{"/usr/local/etc/tool": "y"}
	compact["scripts"] = map[string]any{"post-install": "date +%25s\n"}
	if diff := cmp.Diff(compact, manifests[1]); diff != "" {
		t.Error(diff)
	}
}

func TestSameBytes(t *testing.T) {
	p := sample()
	p.Files = append(p.Files, File{"/usr/local/share/large", 0o644, bytes.Repeat([]byte("all work and no play\n"), 1<<18)})
	first := written(t, p)
	p.Files[0], p.Files[1] = p.Files[1], p.Files[0]
	if !bytes.Equal(first, written(t, p)) {
		t.Error("the same package has other bytes")
	}
}

func TestRefused(t *testing.T) {
	for want, change := range map[string]func(*Package){
		`version "1.2-rc1"`:   func(p *Package) { p.Version = "1.2-rc1" },
		`"FreeBSD:14:x86"`:    func(p *Package) { p.ABI = "FreeBSD:14:x86" },
		"comes twice":         func(p *Package) { p.Files = append(p.Files, p.Files[0]) },
		"no absolute path":    func(p *Package) { p.Files[0].Path = "bin/tool" },
		`"/usr/local/../etc"`: func(p *Package) { p.Files[0].Path = "/usr/local/../etc" },
	} {
		p := sample()
		change(&p)
		if err := p.Write(io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// libarchive is what pkg(8) reads packages with.
func TestLibarchive(t *testing.T) {
	bsdtar := testserver.Require(t, "bsdtar", "apt-get install libarchive-tools (Debian); FreeBSD has it")
	cmd := exec.CommandContext(t.Context(), bsdtar, "-tvf", "-")
	cmd.Stdin = bytes.NewReader(written(t, sample()))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"+COMPACT_MANIFEST\n", "+MANIFEST\n", "root   wheel", "/usr/local/bin/tool\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("bsdtar lists no %q:\n%s", want, out)
		}
	}
}
