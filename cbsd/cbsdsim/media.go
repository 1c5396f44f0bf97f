package cbsdsim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// addMedia registers a VM's first disk and, unless p is empty, its CD.
func (c *call) addMedia(jname string, p profile, imgsize int64) error {
	err := c.registerMedium("hdd-dsk1.vhd", c.wd.path("jails-data", jname+"-data", "dsk1.vhd"), "hdd", jname, imgsize)
	if p.medium != "" {
		err = errors.Join(err, c.registerMedium(p.medium, p.iso(c.wd), "iso", jname, p.isoSize))
	}
	return err
}

func (c *call) registerMedium(name, path, kind, jname string, size int64) error {
	return with(c.wd.mediaDB(), func(d *db) error {
		return d.insert("media", [][2]string{
			{"name", name}, {"path", path}, {"type", kind}, {"jname", jname}, {"size", strconv.FormatInt(size, 10)},
		})
	})
}

// dropMedia forgets a guest's media.
func (c *call) dropMedia(jname string) error {
	return with(c.wd.mediaDB(), func(d *db) error { return d.exec("DELETE FROM media WHERE jname = ?", jname) })
}

func (c *call) media() error {
	a := &c.args
	switch a.get("mode") {
	case "list":
		var rows []row
		err := with(c.wd.mediaDB(), func(d *db) (err error) {
			rows, err = d.query("SELECT name, path, type, jname, size FROM media")
			return err
		})
		if err != nil {
			return err
		}
		display := strings.Split(a.or("display", "name,path,type,jname,size"), ",")
		lines := header(display, a.get("header"))
		for _, r := range rows {
			lines = append(lines, cells(display, func(col string) string {
				if n, err := strconv.ParseInt(r.get(col), 10, 64); col == "size" && err == nil {
					return humanSize(n)
				}
				return orDash(r.get(col))
			}))
		}
		c.table(lines)
		return nil
	case "register":
		for _, name := range []string{"name", "path"} {
			if a.get(name) == "" {
				return c.fail("media: %s= is mandatory", name)
			}
		}
		var size int64
		if fi, err := os.Stat(a.get("path")); err == nil {
			size = fi.Size()
		}
		return c.registerMedium(a.get("name"), a.get("path"), a.or("type", "iso"), a.or("jname", "-"), size)
	case "unregister":
		if a.get("name") == "" && a.get("path") == "" {
			return c.fail("media: name= or path= value is reguired")
		}
		return with(c.wd.mediaDB(), func(d *db) error {
			return d.exec("DELETE FROM media WHERE (name = ?1 OR ?1 = '') AND (path = ?2 OR ?2 = '') AND jname = ?3",
				a.get("name"), a.get("path"), a.or("jname", "-"))
		})
	}
	return c.fail("Unknown mode: %s", a.get("mode"))
}

// images lists no images: nothing registers one.
func (c *call) images() error {
	if c.args.get("mode") != "list" {
		fmt.Fprintf(c.errw, "Unknown mode: %s\n", c.args.get("mode"))
		return exitCode(1)
	}
	c.table([][]string{{"MD5", "NAME", "PATH", "SOURCE", "EMULATOR", "SIZE", "CREATED"}})
	return nil
}

// fetchISO is fetch_iso: it makes the media of profiles, empty but of their size.
// It ends with status 0, whether or not there is such a profile and a mirror
// that has it.
func (c *call) fetchISO() error {
	a := &c.args
	if a.get("name") != "" && a.get("path") != "" {
		return c.fail("Please use name= OR path=")
	}
	cloud := a.get("cloud") == "1"
	var list []profile
	active := 0
	for _, p := range profiles() {
		if p.cloud() == cloud {
			active++
		}
		switch {
		case a.get("name") != "" && p.name != a.get("name"), a.get("path") != "" && filepath.Base(a.get("path")) != p.key():
		case a.get("name") == "" && a.get("path") == "" && p.cloud() != cloud:
		default:
			list = append(list, p)
		}
	}
	if a.get("path") == "" {
		c.say("Active bhyve profiles here: %d", active)
	}
	if name := a.get("name"); name != "" && len(list) == 0 {
		c.say("No profile found with name: %s", name)
	}
	var bad []string
	for i, p := range list {
		path := c.wd.path("etc", "defaults", p.key())
		if a.get("name") != "" {
			c.say("Profile name %s belongs to %s profile.", p.name, path)
		}
		c.say(" * [%d/%d] == Processing %s from %s ==", i+1, len(list), p.name, path)
		ok, err := c.obtain(p)
		if err != nil {
			return err
		}
		if !ok {
			c.say("Warning: obtain_iso error for: %s", p.name)
			bad = append(bad, p.name)
		}
		c.say("")
		if cloud && a.get("conv2zvol") == "1" {
			if err := c.toVolume(p); err != nil {
				return err
			}
		}
	}
	c.say("Processed ISO size: 0") // of files that were renamed before
	if len(bad) > 0 {
		c.say("Bad ISO count: %d", len(bad))
		c.say("Bad ISO list:  %s", strings.Join(bad, " "))
	}
	return nil
}

// isoDir is where fetch_iso puts what it fetches.
func (c *call) isoDir() string {
	if d := c.args.get("dstdir"); d != "" && d != "default" {
		return d
	}
	return c.wd.path("src", "iso")
}

// obtain fetches the medium of a profile if it is not there.
func (c *call) obtain(p profile) (ok bool, err error) {
	dir := c.isoDir()
	file := filepath.Join(dir, p.file0)
	if c.args.get("keepname") == "1" {
		file = filepath.Join(dir, p.dist())
	}
	if _, err := os.Stat(file); err == nil {
		return true, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	part := filepath.Join(dir, p.dist())
	c.say("fetch http://mirror.invalid/%s -> %s", p.dist(), part)
	if c.behaviour.Unreachable {
		c.say("Size: 0 Mb")
		c.say("Checking CRC sum: %s...Invalid CRC: %x", p.sum(), sha256.Sum256(nil))
		c.say("See more details about CRC: https://www.bsdstore.ru/en/cbsd_fetch.html")
		return false, nil
	}
	c.say("Size: %d Mb", p.isoSize/mb)
	if c.behaviour.Half {
		if err := sparse(part, p.isoSize/2); err != nil {
			return false, err
		}
		c.say("Progress: 50%% ")
		return false, nil
	}
	if err := c.grow(part, p.isoSize); err != nil {
		return false, fmt.Errorf("downloading: %w", err)
	}
	for percent := 0; percent <= 100; percent += 20 {
		c.say("Progress: %d%% ", percent)
	}
	c.say("Checking CRC sum: %s...Passed", p.sum())
	if p.cloud() && file != part {
		c.say("Extracting %s -> %s ...", part, filepath.Join(dir, p.image()))
	}
	return true, os.Rename(part, file)
}

// toVolume makes a volume of a cloud image, on ZFS; the image becomes a link.
func (c *call) toVolume(p profile) error {
	file := filepath.Join(c.isoDir(), p.file0)
	fi, err := os.Lstat(file)
	if err != nil {
		c.say(" no such raw file, skip convert to zvol: %s", file)
		return nil
	}
	c.say("Trying to convert cloud images to zvol: %s", file)
	if !c.conf.ZFS || fi.Mode()&os.ModeSymlink != 0 || c.behaviour.Half {
		return nil
	}
	volume := c.wd.path(ZFSDir, "@"+p.file0)
	return errors.Join(os.Rename(file, volume), os.Symlink(volume, file))
}

// grow makes a file of that size, at once or as slowly as it is told to.
func (c *call) grow(file string, size int64) error {
	if c.behaviour.Grow <= 0 {
		return sparse(file, size)
	}
	const steps = 20
	for i := int64(1); i <= steps; i++ {
		if err := sparse(file, size*i/steps); err != nil {
			return err
		}
		time.Sleep(time.Duration(c.behaviour.Grow * float64(time.Second) / steps))
	}
	return sparse(file, size)
}

// download shows the progress of the real one and makes the file of a profile's medium.
func (c *call) download(p profile) error {
	c.say("Download to: %s", p.iso(c.wd))
	c.say("Processing: http://mirror.invalid/%s.xz", strings.TrimPrefix(p.file0, "cbsd-"))
	if c.behaviour.Unreachable {
		c.say("Size: 0 Mb")
		c.say("Check CRC sum skipped due to settings. See more: https://www.bsdstore.ru/en/cbsd_fetch.html")
		c.say("No such ISO image. Try to download it manually and put into %s", p.iso(c.wd))
		return c.fail("Or register (via cbsd media mode=register) it with vm_iso_path name: %s", p.medium)
	}
	c.say("Size: %d Mb", p.isoSize/mb)
	for percent := 0; percent <= 100; percent += 20 {
		c.say("Progress: %d%%", percent)
	}
	part := p.iso(c.wd) + ".part"
	if err := sparse(part, p.isoSize); err != nil {
		return fmt.Errorf("downloading: %w", err)
	}
	return os.Rename(part, p.iso(c.wd))
}
