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

// hostFiles are the files that an environment of a pool must leave alone.
var hostFiles = []string{
	"/etc/rc.conf", "/etc/rc.conf.local", "/etc/rc.conf.d/*", "/etc/sysctl.conf", "/etc/sysctl.conf.local", "/etc/sysctl.d/*",
	"/etc/sudoers", "/etc/sudoers.d/*", "/usr/local/etc/sudoers", "/usr/local/etc/sudoers.d/*",
	"/etc/passwd", "/etc/master.passwd", "/etc/shadow", "/etc/group", "/etc/pf.conf", "/etc/crontab",
	"/boot/loader.conf", "/etc/fstab", "/etc/systemd/system/*.service",
}

// hostMax bounds what is read of one file; the rest counts by its size.
const hostMax = 4 << 20

// A hostState is those files at one moment, by their path.
type hostState map[string]hostFile

type hostFile struct {
	sum   [sha256.Size]byte
	mode  os.FileMode
	names map[string][sha256.Size]byte // of its lines NAME=VALUE and NAME:VALUE
}

func readHost(root string) hostState {
	s := make(hostState)
	for _, pattern := range hostFiles {
		files, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns are good ones
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil || !info.Mode().IsRegular() || info.Size() > hostMax {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				continue // whoever cannot read it cannot say that it changed
			}
			f := hostFile{sum: sha256.Sum256(text), mode: info.Mode(), names: make(map[string][sha256.Size]byte)}
			for line := range strings.Lines(string(text)) {
				line = strings.TrimSpace(line)
				if i := strings.IndexAny(line, "=:"); i > 0 && !strings.HasPrefix(line, "#") {
					f.names[strings.TrimSpace(line[:i])] = sha256.Sum256([]byte(line))
				}
			}
			s["/"+strings.TrimLeft(strings.TrimPrefix(file, root), "/")] = f
		}
	}
	return s
}

// changes lists the files that differ, and the names in them: + came, - went, ~
// has another value. Values are not told: they may be secret.
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
		case !had:
			list = append(list, path+": new")
		case !has:
			list = append(list, path+": removed")
		case was.sum != is.sum:
			list = append(list, fmt.Sprintf("%s: changed: %s", path, strings.Join(nameChanges(was.names, is.names), " ")))
		case was.mode != is.mode:
			list = append(list, fmt.Sprintf("%s: mode %s, was %s", path, is.mode, was.mode))
		}
	}
	return list
}

func nameChanges(was, is map[string][sha256.Size]byte) []string {
	var list []string
	for name, sum := range is {
		switch old, had := was[name]; {
		case !had:
			list = append(list, "+"+name)
		case old != sum:
			list = append(list, "~"+name)
		}
	}
	for name := range was {
		if _, has := is[name]; !has {
			list = append(list, "-"+name)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(a[1:], b[1:]) })
	if len(list) == 0 {
		return []string{"in its comments or its order"}
	}
	return list
}
