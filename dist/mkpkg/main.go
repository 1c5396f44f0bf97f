// Command mkpkg writes what is handed out: packages for pkg(8) and tar files. The
// Makefile builds the programs and calls it.
package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq/internal/freebsdpkg"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkpkg:", err)
		os.Exit(1)
	}
}

// run does one of
//
//	pkg     -program FILE -abi FreeBSD:14:amd64 -version 1.2.3 -o FILE
//	tar     -program FILE -version 1.2.3-linux-amd64 -o FILE
//	stage   -program FILE -o DIR         the files below DIR, for the port and make install
func run(args []string) error {
	if len(args) == 0 {
		return errors.New("pkg, tar or stage?")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	program := f.String("program", "", "the `file` of the program")
	generated := f.String("generated", "build/generated", "`directory` with manual pages and completion")
	repository := f.String("C", ".", "`directory` of the repository")
	version := f.String("version", "", "of the package")
	abi := f.String("abi", "", "for which system")
	out := f.String("o", "", "`file` to write")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	files, err := contents(*repository, *program, *generated)
	if err != nil {
		return err
	}
	when, err := modified()
	if err != nil {
		return err
	}
	if args[0] != "stage" {
		if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
			return err
		}
	}
	switch args[0] {
	case "pkg":
		return create(*out, func(w *os.File) error {
			return of(freebsdpkg.Package{Version: pkgVersion(*version), ABI: *abi, Files: files, Modified: when}).Write(w)
		})
	case "tar":
		return create(*out, func(w *os.File) error { return writeTar(w, "cbsdmq-"+*version, files, when) })
	case "stage":
		return stage(*out, files)
	}
	return fmt.Errorf("%s is none of pkg, tar and stage", args[0])
}

// modified is the time of all files: SOURCE_DATE_EPOCH, so that the same sources
// give the same bytes.
func modified() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		text = "0"
	}
	sec, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(sec, 0).UTC(), nil
}

// pkgVersion is a version as pkg(8) compares them: 1.2.3-rc1 is before 1.2.3.
func pkgVersion(v string) string {
	v = strings.TrimPrefix(v, "v")
	v = strings.ReplaceAll(v, "-rc", ".r")
	return strings.NewReplacer("-", ".", "_", ".").Replace(v)
}

// create writes a file whole or not at all.
func create(name string, write func(*os.File) error) error {
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), name)
}

// writeTar writes the files as they lie below the prefix, in a directory of that
// name.
func writeTar(w *os.File, dir string, files []freebsdpkg.File, when time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: dir + strings.TrimPrefix(f.Path, prefix), Mode: f.Mode, Size: int64(len(f.Data)),
			Uname: "root", Gname: "wheel", ModTime: when,
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func stage(dir string, files []freebsdpkg.File) error {
	for _, f := range files {
		file := filepath.Join(dir, f.Path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, f.Data, os.FileMode(f.Mode)); err != nil {
			return err
		}
	}
	for _, d := range directories {
		if err := os.MkdirAll(filepath.Join(dir, prefix, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}
