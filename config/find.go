package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cbsd/cbsdmq"
)

// PoolsEnv is the environment variable that names the directories of pools, as
// PATH does.
const PoolsEnv = "CBSDMQ_POOLS"

// Places says where to look for pools.
type Places struct {
	Dirs  []string // every *.json in them is a pool
	Globs []string // of files that count only where they have a cbsdenv
}

// PoolPlaces are the directories of dirs (separated as in PATH), else those of
// env, the value of PoolsEnv, else the default: DefaultPools and the files of
// the original programs.
func PoolPlaces(dirs, env string) Places {
	for _, list := range []string{dirs, env} {
		if list != "" {
			return Places{Dirs: filepath.SplitList(list)}
		}
	}
	etc := filepath.Dir(DefaultPools)
	return Places{
		Dirs: []string{DefaultPools},
		Globs: []string{
			filepath.Join(etc, "pool*.json"),
			filepath.Join(etc, "cbsdmq.json"),
			filepath.Join(etc, "cbsd-mq-router.json"),
		},
	}
}

// Found is a pool with its file.
type Found struct {
	Name     string
	File     string
	Config   *Config
	Warnings []Warning
}

// Pools are the pools of some places, by name.
type Pools struct {
	Found  []Found // sorted by name and file; a name may come twice
	Broken []error // files that cannot be used
	Looked []string
}

// Find reads the pools of the places. Files that cannot be used go to Broken; a
// place that is not there is no error.
func Find(places Places) Pools {
	p := Pools{Looked: append(slices.Clone(places.Dirs), places.Globs...)}
	var seen []os.FileInfo
	take := func(glob string, needEnv bool) {
		files, err := filepath.Glob(glob)
		if err != nil {
			p.Broken = append(p.Broken, badConfig("", "looking for pools at %s: %w", glob, err))
		}
		for _, file := range files {
			info, err := os.Stat(file)
			switch {
			case err != nil:
				p.Broken = append(p.Broken, badConfig("", "%w", err))
			case !info.IsDir() && !slices.ContainsFunc(seen, func(i os.FileInfo) bool { return os.SameFile(i, info) }):
				seen = append(seen, info)
				p.add(file, needEnv)
			}
		}
	}
	for _, dir := range places.Dirs {
		if err := listable(dir); err != nil { // Glob would find nothing
			p.Broken = append(p.Broken, err)
		}
		take(filepath.Join(globEscape(dir), "*.json"), false)
	}
	for _, glob := range places.Globs {
		take(glob, true)
	}
	slices.SortFunc(p.Found, func(a, b Found) int {
		return strings.Compare(a.Name+"\x00"+a.File, b.Name+"\x00"+b.File)
	})
	return p
}

// listable says why the files of dir cannot be found.
func listable(dir string) error {
	_, err := os.ReadDir(dir)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return badConfig("", "looking for pools: %w", err).WithHint("it is no directory; --config names a file")
	}
	return badConfig("", "looking for pools: %w", err).WithHint("only those who may read it find the pools there: often root")
}

func (p *Pools) add(file string, needEnv bool) {
	c, warnings, err := Load(file)
	if err != nil {
		p.Broken = append(p.Broken, err)
		return
	}
	if c.CBSDEnv == "" && needEnv {
		return
	}
	if c.Pool == "" {
		c.Pool = poolOf(strings.TrimSuffix(filepath.Base(file), ".json"))
		c.complete()
	}
	p.Found = append(p.Found, Found{Name: c.Pool, File: file, Config: c, Warnings: warnings})
}

// Names are the names of the pools, each once, sorted.
func (p Pools) Names() []string {
	var names []string
	for _, f := range p.Found {
		names = append(names, f.Name)
	}
	return slices.Compact(names)
}

// Get returns the pool of that name. An *Error of CodeNotFound says which pools
// there are and where was looked, one of CodeBadConfig that two files hold it.
func (p Pools) Get(name string) (Found, error) {
	var hits []Found
	for _, f := range p.Found {
		if f.Name == name {
			hits = append(hits, f)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return Found{}, p.notFound(name)
	}
	var files []string
	for _, f := range hits {
		files = append(files, f.File)
	}
	return Found{}, badConfig("pool", "%q is in more than one file: %s", name, strings.Join(files, ", ")).
		WithHint("take one of them with --config FILE")
}

func (p Pools) notFound(name string) error {
	known := "no pool was found"
	if names := p.Names(); len(names) > 0 {
		known = "known pools: " + strings.Join(names, ", ")
		if near := nearest(name, names); near != "" {
			known = fmt.Sprintf("did you mean %s? %s", near, known)
		}
	}
	hint := fmt.Sprintf("%s; looked in %s", known, strings.Join(p.Looked, ", "))
	err := error(cbsdmq.Errorf(cbsdmq.CodeNotFound, "pool", "there is no pool %q", name).WithHint("%s", hint))
	if len(p.Broken) > 0 {
		// One of them may be the pool.
		err = errors.Join(append([]error{err}, p.Broken...)...)
	}
	return err
}

// globEscape makes a pattern that matches dir only.
func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
