package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// pack makes cbsdmq-VERSION.pkg of the sources, as `make pkg` does, with a program
// that runs on the test's host.
func (s *site) pack(_ *testscript.TestScript, args []string) error {
	version := args[0]
	dir := s.path(".pack" + version)
	program, generated := filepath.Join(dir, "cbsdmq"), filepath.Join(dir, "generated")
	script := `set -e
go build -buildvcs=false -ldflags "-s -w -X main.release=$1" -o "$2" .
"$2" man "$3/man"
for shell in bash zsh fish; do "$2" completion $shell > "$3/completion.$shell"; done
go run ../../dist/mkpkg pkg -C ../.. -abi FreeBSD:15:amd64 -version "$1" -program "$2" -generated "$3" -o "$4"`
	if err := os.MkdirAll(generated, 0o755); err != nil {
		return err
	}
	s.packed = true
	out, err := exec.Command("sh", "-c", script, "sh", version, program, generated, s.path("cbsdmq-"+version+".pkg")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// pkgMain stands in for pkg(8), for packages of cbsdmq below the root of a site:
//
//	pkg add [-f] FILE          what is installed goes first; scripts are run, messages shown
//	pkg delete -y NAME
//	pkg [-c ROOT] info -e NAME
//	pkg [-c ROOT] install -y NAME...   of somebody else: only noted
func pkgMain() {
	p := pkgDB{root: filepath.Join(os.Getenv("WORK"), "root")}
	args := os.Args[1:]
	if len(args) > 1 && args[0] == "-c" {
		p.root, args = args[1], args[2:]
	}
	var err error
	switch last := args[len(args)-1]; args[0] {
	case "add":
		err = p.add(last, slices.Contains(args, "-f"))
	case "delete":
		err = p.remove(last, "remove")
	case "info":
		if _, err := p.installed(last); err != nil {
			os.Exit(1)
		}
	case "install":
		err = p.install(args[2:])
	default:
		err = fmt.Errorf("no stand-in for %q", args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pkg:", err)
		os.Exit(1)
	}
}

type pkgDB struct{ root string }

// A pkgRecord is what is kept of a package: of its manifest, what is needed to
// delete it.
type pkgRecord struct {
	Name, Version string
	Files         map[string]string
	Directories   map[string]string
	Scripts       map[string]string
	Messages      []struct{ Message, Type string }
}

func (p pkgDB) record(name string) string { return filepath.Join(p.root, "var/db/pkg", name) }

func (p pkgDB) installed(name string) (*pkgRecord, error) {
	text, err := os.ReadFile(p.record(name))
	if err != nil {
		return nil, err
	}
	r := &pkgRecord{}
	return r, json.Unmarshal(text, r)
}

func (p pkgDB) keep(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(p.record(name)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(p.record(name), text, 0o644)
}

func (p pkgDB) install(names []string) error {
	log, err := os.OpenFile(filepath.Join(os.Getenv("WORK"), "commands"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintln(log, "pkg", strings.Join(os.Args[1:], " "))
	for _, name := range names {
		if err := p.keep(name, []byte("{}")); err != nil {
			return err
		}
	}
	return nil
}

func (p pkgDB) add(file string, force bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	var manifest []byte
	var r pkgRecord
	message := "install"
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		switch {
		case h.Name == "+COMPACT_MANIFEST":
		case h.Name == "+MANIFEST":
			manifest = text
			if err := json.Unmarshal(text, &r); err != nil {
				return err
			}
			before, err := p.installed(r.Name)
			if err == nil && !force {
				return fmt.Errorf("%s-%s is already installed", before.Name, before.Version)
			}
			if err == nil {
				message = "upgrade"
				err = p.remove(r.Name, "")
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case h.Typeflag == tar.TypeReg:
			if err := p.write(h.Name, h.FileInfo().Mode(), text); err != nil {
				return err
			}
		}
	}
	if err := p.script(&r, "post-install"); err != nil {
		return err
	}
	r.say(message)
	return p.keep(r.Name, manifest)
}

// write puts a file in its place. Scripts that name places of a FreeBSD host are
// told where those are.
func (p pkgDB) write(name string, mode fs.FileMode, text []byte) error {
	to := filepath.Join(p.root, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if strings.Contains(name, "/rc.d/") || strings.Contains(name, "/libexec/") {
		text = []byte(testserver.Relocate(p.root, string(text)))
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.WriteFile(to, text, mode|0o200)
}

func (p pkgDB) remove(name, message string) error {
	r, err := p.installed(name)
	if err != nil {
		return err
	}
	if err := p.script(r, "pre-deinstall"); err != nil {
		return err
	}
	for file := range r.Files {
		if err := os.Remove(filepath.Join(p.root, file)); err != nil {
			return err
		}
	}
	for dir := range r.Directories {
		_ = syscall.Rmdir(filepath.Join(p.root, dir)) // unless there is something in it
	}
	r.say(message)
	return os.Remove(p.record(name))
}

func (p pkgDB) script(r *pkgRecord, name string) error {
	text, err := url.PathUnescape(r.Scripts[name])
	if err != nil {
		return err
	}
	sh := exec.Command("sh", "-c", text)
	sh.Env = append(os.Environ(), "PKG_ROOTDIR="+p.root)
	sh.Stdout, sh.Stderr = os.Stdout, os.Stderr
	if err := sh.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r *pkgRecord) say(when string) {
	for _, m := range r.Messages {
		if m.Type == when {
			text, _ := url.PathUnescape(m.Message)
			fmt.Println(text)
		}
	}
}
