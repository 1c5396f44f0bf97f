package cbsdsim

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
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
func (c *call) fetchISO() error {
	want := c.args.get("name")
	if path := c.args.get("path"); path != "" {
		want = path
	}
	found := false
	for _, p := range profiles() {
		if want != "" && p.name != want && !strings.HasSuffix(want, p.key()) {
			continue
		}
		if want == "" && p.cloud() != (c.args.get("cloud") == "1") {
			continue
		}
		found = true
		if !p.missing(c.wd) {
			continue
		}
		if err := c.download(p); err != nil {
			return err
		}
	}
	if !found {
		return c.fail("fetch_iso: no such profile: %s", want)
	}
	return nil
}

// download shows the progress of the real one and makes the file of a profile's medium.
func (c *call) download(p profile) error {
	c.say("Download to: %s", p.iso(c.wd))
	c.say("Processing: http://mirror.invalid/%s.xz", strings.TrimPrefix(p.file0, "cbsd-"))
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
