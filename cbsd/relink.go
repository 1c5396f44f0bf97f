package cbsd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// sent makes what stands for the guest's file system in the other environment: a
// link to it, as here. done is false where source is a file of the environment.
func (t *transfer) sent(source, target string) (done bool, err error) {
	if t.source == "" {
		return false, nil
	}
	info, err := os.Lstat(source)
	if err != nil {
		return false, err
	}
	if info.Mode()&os.ModeSymlink == 0 {
		return source == t.from.path("jails-data", t.guest+"-data"), nil // where the file system is mounted
	}
	to, err := os.Readlink(source)
	if err != nil {
		return false, err
	}
	if rest, ok := strings.CutPrefix(to, t.from.cfg.Workdir+"/"); ok {
		to = t.to.path(rest)
	}
	return true, replaceLink(to, target)
}

// relink leads the links to the disks of a VM to the volumes there.
func (t *transfer) relink(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		if to, err := os.Readlink(link); err == nil {
			if rest, ok := strings.CutPrefix(to, volumes+t.source+"/"); ok {
				if err := replaceLink(volumes+t.target+"/"+rest, link); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// replaceLink makes a symbolic link in one step.
func replaceLink(to, link string) error {
	if err := os.Remove(link + ".cbsdmq"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, link+".cbsdmq"); err != nil {
		return err
	}
	return os.Rename(link+".cbsdmq", link)
}
