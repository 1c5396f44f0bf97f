package cbsdsim

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// An image is what an export file tells of a guest, its first entry; the others
// are the guest's system files. Disks are empty, so their sizes are enough.
type image struct {
	Jname, Node, Date, Workdir string
	Jail, VM                   map[string]string
	Disks                      map[string]int64
	Flat                       int64 // bytes on disk
}

const imageEntry = "image.json"

// An image has parts between such lines; the last one are the data.
const (
	imageData = "___NCSTART_DATA=1\n"
	imageStop = "\n___NCSTOP_DATA=1\n"
)

// export is bexport and jexport: the guest as a file in the directory export.
func (c *call) export() error {
	jname := c.args.get("jname")
	if c.args.empty() {
		return c.pick("List of all jails", familyOf(map[string]string{"b": "bhyve", "j": "jail"}[c.name[:1]]), "", "No such jail: ")
	}
	if jname == "" && len(c.args.words) > 0 {
		jname = c.args.words[0]
	}
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	if !g.exists() {
		return c.fail("No such jail: %s", jname)
	}
	if g.running() && g.emulator == "bhyve" {
		return c.fail("VM is online")
	}
	c.say("Exporting (with compress level:%s), please stand by: %s", c.args.or("compress", "6"), jname)
	img := image{
		Jname: jname, Node: c.nodename(), Date: time.Now().Format("20060102"), Workdir: string(c.wd),
		Jail: g.row.values, Disks: map[string]int64{},
	}
	if g.emulator != "jail" {
		vm, err := c.store.first("SELECT * FROM "+g.emulator+" WHERE jname = ?", jname)
		if err != nil {
			return err
		}
		img.VM = vm.values
	}
	file := filepath.Join(c.args.or("dstdir", c.wd.path("export")), c.args.or("imgname", jname)+".img")
	if err := c.writeImage(file, &img); err != nil {
		return fmt.Errorf("exporting %s: %w", jname, err)
	}
	fi, err := os.Stat(file)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.errw, "WIP: [0%...25%...50%...75%...100%]")
	c.say("environment flat size: %s, images size %s: %s", humanSize(img.Flat), filepath.Base(file), humanSize(fi.Size()))
	c.say("exported image file: %s", file)
	c.done("jexport", c.begun)
	return nil
}

func (c *call) writeImage(file string, img *image) error {
	disks, err := filepath.Glob(filepath.Join(c.wd.data(img.Jname), "*.vhd"))
	if err != nil {
		return err
	}
	for _, d := range disks {
		fi, err := os.Stat(d)
		if err != nil {
			return err
		}
		img.Disks[filepath.Base(d)] = fi.Size()
		img.Flat += fi.Size()
	}
	head, err := json.Marshal(img)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if c.behaviour.Grow > 0 { // as it would where the disks are not empty
		if err := c.grow(file, img.Flat); err != nil {
			return err
		}
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := fmt.Fprintf(out, "___NCSTART_HEADER=1\nemulator=\"%s\"\nimg_flat_size=\"%d\"\n___NCSTOP_HEADER=1\n%s",
		img.Jail["emulator"], max(img.Flat, 10240), imageData); err != nil || c.behaviour.Half {
		return err
	}
	zip := gzip.NewWriter(out)
	archive := tar.NewWriter(zip)
	add := func(name string, data []byte) error {
		err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data))})
		if err == nil {
			_, err = archive.Write(data)
		}
		return err
	}
	if err := add(imageEntry, head); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.wd.system(img.Jname))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == "qemu.pid" || strings.HasPrefix(e.Name(), "vnc_") {
			continue
		}
		data, err := os.ReadFile(c.wd.path("jails-system", img.Jname, e.Name()))
		if err == nil {
			err = add(e.Name(), data)
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(archive.Close(), zip.Close()); err != nil {
		return err
	}
	_, err = io.WriteString(out, imageStop)
	return errors.Join(err, out.Close())
}

// importImage is bimport and jimport, which fail with status 0.
func (c *call) importImage() error {
	name := c.args.get("jname")
	if name == "" && len(c.args.words) > 0 {
		name = c.args.words[0]
	}
	if name == "" {
		c.say("Give me jname or full path")
		c.say("Content of %s:", c.wd.path("import"))
		return nil
	}
	file := name
	if !strings.Contains(name, "/") {
		file = c.wd.path("import", strings.TrimSuffix(name, ".img")+".img")
	}
	fi, err := os.Stat(file)
	if err != nil {
		c.say("No such jail or image here: %s", name)
		return nil
	}
	img, files, err := readImage(file)
	if err != nil {
		c.say("No header info extracted")
		return nil
	}
	c.say("Importing image, please stand by: %s", img.Jname)
	c.say("CBSD Image, version: 4")
	c.say("Image was created on node: %s", img.Node)
	c.say("Image was created at: %s", img.Date)
	c.say("Image size: %s", humanSize(fi.Size()))
	c.say("Environment flat size after extracting: %s", humanSize(img.Flat))
	c.say("Compress level: 6")
	jname := c.args.or("new_jname", img.Jname)
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	if g.exists() {
		c.say("Jail already exist: %s. May be new_jname= args can help?", jname)
		return nil
	}
	if jname != filepath.Base(jname) {
		c.say("error extract rcconf")
		return nil
	}
	if err := c.adopt(img, files, jname); err != nil {
		return fmt.Errorf("importing %s: %w", jname, err)
	}
	if c.behaviour.Half { // the function ends with 1, the script with 0
		return nil
	}
	fmt.Fprintln(c.errw, "WIP: [0%...50%...100%]")
	if ip := c.args.get("new_ip4_addr"); ip != "" {
		c.say("IP sets to: %s", ip)
	}
	if host := c.newHostname(jname); host != "" {
		c.say("Hostname sets to: %s", host)
	}
	c.done("jimport", c.begun)
	return nil
}

func (c *call) newHostname(jname string) string {
	if h := c.args.get("new_host_hostname"); h != "" {
		return h
	}
	if c.args.get("new_jname") != "" {
		return jname + ".my.domain"
	}
	return ""
}

func readImage(file string) (img image, files map[string][]byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return img, nil, err
	}
	_, data, ok := bytes.Cut(text, []byte(imageData))
	if !ok {
		return img, nil, errors.New("no data in it")
	}
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return img, nil, err
	}
	zip.Multistream(false)
	files = map[string][]byte{}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return img, nil, err
		}
		if files[filepath.Base(h.Name)], err = io.ReadAll(archive); err != nil {
			return img, nil, err
		}
	}
	err = json.Unmarshal(files[imageEntry], &img)
	delete(files, imageEntry)
	return img, files, err
}

// adopt makes a guest of an image.
func (c *call) adopt(img image, files map[string][]byte, jname string) error {
	if err := errors.Join(os.MkdirAll(c.wd.system(jname), 0o755), os.MkdirAll(c.wd.data(jname), 0o755)); err != nil {
		return err
	}
	for name, data := range files {
		name = strings.ReplaceAll(name, "rc.conf_"+img.Jname, "rc.conf_"+jname)
		if err := os.WriteFile(c.wd.path("jails-system", jname, name), data, 0o600); err != nil {
			return err
		}
	}
	if c.behaviour.Half {
		c.say("data")
		return nil
	}
	f := familyOf(img.Jail["emulator"])
	values := c.renamed(guest{jname: img.Jname, row: row{values: img.Jail}}, jname)
	values["data"] = c.wd.data(jname)
	values["jid"], values["status"] = "0", stateOff
	if h := c.newHostname(jname); h != "" {
		values["host_hostname"] = h
	}
	ip := c.args.get("new_ip4_addr")
	if ip != "" {
		values["ip4_addr"] = ip
	}
	if f != jail {
		if err := c.adoptDB(f, jname, false); err != nil {
			return err
		}
		if ip != "" {
			if err := with(c.wd.guestDB(jname), func(d *db) error { return d.exec("UPDATE settings SET ip4_addr = ?", ip) }); err != nil {
				return err
			}
		}
	}
	for disk, size := range img.Disks {
		path := filepath.Join(c.wd.data(jname), filepath.Base(disk))
		if err := errors.Join(sparse(path, size), c.registerMedium("hdd-"+filepath.Base(disk), path, "hdd", jname, size)); err != nil {
			return err
		}
	}
	return c.insertGuest(f, jname, values, img.VM)
}
