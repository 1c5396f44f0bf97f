package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq/internal/freebsdpkg"
)

const prefix = "/usr/local"

// copied are files of the repository, by where they are installed below the
// prefix. A directory at the end of a pattern is one of the package.
var copied = []struct {
	to   string
	from string // pattern
	mode int64
}{
	{"etc/rc.d", "dist/rc.d/*", 0o555},
	{"libexec/cbsdmq", "dist/libexec/*", 0o555},
	{"share/doc/cbsdmq", "*.md", 0o444},
	{"share/doc/cbsdmq", "LICENSE", 0o444},
	{"share/doc/cbsdmq/docs", "docs/*.md", 0o444},
	{"share/examples/cbsdmq", "dist/*.sh", 0o555},
	{"share/examples/cbsdmq", "config/example.json", 0o444},
	{"share/examples/cbsdmq/config", "dist/sample/*", 0o444},
	{"share/examples/cbsdmq/config/cluster", "dist/sample/cluster/*", 0o444},
	{"share/examples/cbsdmq/jobs/bin.jail", "dist/samples/bin.jail/*", 0o555},
	{"share/examples/cbsdmq/jobs/bin.bhyve", "dist/samples/bin.bhyve/*", 0o555},
	{"share/examples/cbsdmq/wire", "dist/samples/wire/*", 0o555},
	{"share/examples/cbsdmq/grafana", "dist/grafana/*", 0o444},
}

// samples are copied to their name without .sample when the package is
// installed, and removed with it unless they were changed.
var samples = map[string]string{
	"etc/newsyslog.conf.d/cbsdmq.conf.sample": "dist/newsyslog.conf.d/cbsdmq.conf",
}

// completions are where each shell looks for them.
var completions = map[string]string{
	"bash": "share/bash-completion/completions/cbsdmq",
	"zsh":  "share/zsh/site-functions/_cbsdmq",
	"fish": "share/fish/vendor_completions.d/cbsdmq.fish",
}

// directories are removed with the package where they are empty.
var directories = []string{"etc/cbsdmq"}

// contents are the files of the package: the program, what `cbsdmq man` and
// `cbsdmq completion` wrote into generated, and what is in the repository.
func contents(repository, program, generated string) ([]freebsdpkg.File, error) {
	var files []freebsdpkg.File
	add := func(to, from string, mode int64) error {
		data, err := os.ReadFile(from)
		if err == nil {
			files = append(files, freebsdpkg.File{Path: path.Join(prefix, to), Mode: mode, Data: data})
		}
		return err
	}
	if err := add("bin/cbsdmq", program, 0o755); err != nil {
		return nil, err
	}
	for _, c := range copied {
		found, err := filepath.Glob(filepath.Join(repository, c.from))
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("no files %s (%w)", c.from, cmp.Or(err, fs.ErrNotExist))
		}
		for _, file := range found {
			if info, err := os.Stat(file); err != nil || info.IsDir() {
				continue
			}
			if err := add(path.Join(c.to, filepath.Base(file)), file, c.mode); err != nil {
				return nil, err
			}
		}
	}
	for to, from := range samples {
		if err := add(to, filepath.Join(repository, from), 0o644); err != nil {
			return nil, err
		}
	}
	for shell, to := range completions {
		if err := add(to, filepath.Join(generated, "completion."+shell), 0o444); err != nil {
			return nil, err
		}
	}
	pages, err := filepath.Glob(filepath.Join(generated, "man", "*.[1-9]"))
	if err != nil || len(pages) == 0 {
		return nil, fmt.Errorf("no manual pages in %s (%w)", generated, cmp.Or(err, fs.ErrNotExist))
	}
	for _, page := range pages {
		section := strings.TrimPrefix(filepath.Ext(page), ".")
		if err := add(path.Join("share/man/man"+section, filepath.Base(page)+".gz"), page, 0o444); err != nil {
			return nil, err
		}
		if err := compress(&files[len(files)-1].Data); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(files, func(a, b freebsdpkg.File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

func compress(data *[]byte) error {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(*data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	*data = b.Bytes()
	return nil
}
