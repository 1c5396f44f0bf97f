package cbsd

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hostFiles are the files that an environment of a pool must leave alone: those
// that initenv writes to where it is let, or that systemctl does for it. A
// pattern that ends with ** is a directory with all that is below it.
var hostFiles = []string{
	"/etc/rc.conf", "/etc/rc.conf.local", "/etc/rc.conf.d/*", "/etc/sysctl.conf", "/etc/sysctl.conf.local", "/etc/sysctl.d/*",
	"/etc/sudoers", "/etc/sudoers.d/*", "/usr/local/etc/sudoers", "/usr/local/etc/sudoers.d/*",
	"/etc/passwd", "/etc/master.passwd", "/etc/shadow", "/etc/group", "/etc/hostname", "/etc/hosts", "/etc/pf.conf",
	"/etc/crontab", "/etc/cron.d/*", "/etc/rc.d/*", "/usr/local/etc/rc.d/*", "/boot/loader.conf", "/boot/loader.conf.local", "/etc/fstab",
	"/etc/systemd/system/**", "/lib/systemd/system/cbsd*", "/usr/lib/systemd/system/cbsd*",
}

const (
	hostMax  = 4 << 20 // what is read of one file; a larger one counts by its size
	hostMost = 4096    // files of one directory with all that is below it
)

// A hostState is those files at one moment, by their path.
type hostState map[string]hostFile

type hostFile struct {
	sum   [sha256.Size]byte
	size  int64
	mode  os.FileMode
	link  string                       // where it leads, "" for a file
	names map[string][sha256.Size]byte // of its lines NAME=VALUE and NAME:VALUE
}

func readHost(root string) hostState {
	s := make(hostState)
	root, err := filepath.EvalSymlinks(filepath.Join("/", root))
	if err != nil {
		return s
	}
	for _, pattern := range hostFiles {
		for _, file := range hostMatches(root, pattern) {
			// Where /lib is a link to /usr/lib a file has two names, and is told once.
			if dir, err := filepath.EvalSymlinks(filepath.Dir(file)); err == nil {
				file = filepath.Join(dir, filepath.Base(file))
			}
			if f, ok := readHostFile(file); ok {
				s["/"+strings.TrimLeft(strings.TrimPrefix(file, root), "/")] = f
			}
		}
	}
	return s
}

func hostMatches(root, pattern string) (files []string) {
	top, below := strings.CutSuffix(pattern, "/**")
	if !below {
		files, _ = filepath.Glob(filepath.Join(root, pattern)) // the patterns are good ones
		return files
	}
	_ = filepath.WalkDir(filepath.Join(root, top), func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil && entry != nil && entry.IsDir():
			return filepath.SkipDir
		case err != nil || len(files) == hostMost:
			return filepath.SkipAll
		case !entry.IsDir():
			files = append(files, path)
		}
		return nil
	})
	return files
}

// readHostFile reads a file, or where a link leads and what is there.
func readHostFile(file string) (hostFile, bool) {
	info, err := os.Lstat(file)
	if err != nil {
		return hostFile{}, false
	}
	f := hostFile{mode: info.Mode()}
	if info.Mode()&os.ModeSymlink != 0 {
		if f.link, err = os.Readlink(file); err != nil {
			return hostFile{}, false
		}
		if info, err = os.Stat(file); err != nil {
			return f, true // it leads nowhere
		}
	}
	f.size = info.Size()
	switch {
	case !info.Mode().IsRegular():
		return f, f.link != ""
	case info.Size() > hostMax:
		return f, true
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return hostFile{}, false // whoever cannot read it cannot say that it changed
	}
	f.sum, f.names = sha256.Sum256(text), make(map[string][sha256.Size]byte)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if i := strings.IndexAny(line, "=:"); i > 0 && !strings.HasPrefix(line, "#") {
			f.names[strings.TrimSpace(line[:i])] = sha256.Sum256([]byte(line))
		}
	}
	return f, true
}

// changes lists the files that differ, and the names of their lines that do.
// Values are not told: they may be secret.
func (s hostState) changes(now hostState) []string {
	var list []string
	paths := make(map[string]bool)
	for path := range s {
		paths[path] = true
	}
	for path := range now {
		paths[path] = true
	}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		was, had := s[path]
		is, has := now[path]
		switch {
		case !has:
			list = append(list, path+": removed")
		case is.link != "" && is.link != was.link:
			list = append(list, path+": a new link to "+is.link)
		case !had && is.size == 0:
			list = append(list, path+": a new file, empty")
		case !had:
			list = append(list, path+": a new file")
		case was.sum != is.sum || was.size != is.size || was.link != is.link:
			list = append(list, path+": "+lineChanges(was.names, is.names))
		case was.mode != is.mode:
			list = append(list, fmt.Sprintf("%s: mode %s, was %s", path, is.mode, was.mode))
		}
	}
	return list
}

// lineChanges says which lines came, went and changed, by their names.
func lineChanges(was, is map[string][sha256.Size]byte) string {
	var changed, came, gone []string
	for name, sum := range is {
		switch old, had := was[name]; {
		case !had:
			came = append(came, name)
		case old != sum:
			changed = append(changed, name)
		}
	}
	for name := range was {
		if _, has := is[name]; !has {
			gone = append(gone, name)
		}
	}
	var said []string
	for _, part := range []struct {
		what  string
		names []string
	}{{"changed", changed}, {"new", came}, {"gone", gone}} {
		slices.Sort(part.names)
		switch len(part.names) {
		case 0:
		case 1:
			said = append(said, part.what+", the line of "+part.names[0])
		default:
			said = append(said, part.what+", the lines of "+strings.Join(part.names, ", "))
		}
	}
	if len(said) == 0 {
		return "changed, but no line with a name: comments, the order, or lines of another form"
	}
	return strings.Join(said, "; ")
}
