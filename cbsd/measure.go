package cbsd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Moved is how far a running command is.
type Moved struct {
	What    string // what it does now; "" where that is not known
	Percent int    // from what it printed; -1 where it printed none
	Bytes   int64  // the size of what it makes, 0 where that is not known
	Of      int64  // how large that will be, 0 where that is not known
}

// measuredFiles bounds how many files of one guest are looked at.
const measuredFiles = 256

// Measure says how far the command of plan is. stdout and stderr are the ends of
// what it has printed. It reads sizes of files, and starts no process.
func (p *Pool) Measure(ctx context.Context, plan Plan, stdout, stderr []byte) Moved {
	m := Moved{Percent: -1}
	switch plan.Verb {
	case Export:
		m.What, m.Bytes = "writing "+p.exported(plan), fileState(p.exported(plan)).Size
		if level, _ := plan.Arg("compress"); level == "0" {
			if g, err := p.state(ctx, plan.Guest, Export, nil); err == nil {
				m.Of = sizes(g.Data)
			}
		}
	case Import:
		m.What = "unpacking " + plan.Guest
		m.Bytes = sizes(p.path("jails-data", plan.Guest+"-data"))
		parts, _ := filepath.Glob(p.path("jails-data", "tmp.*", "*")) // the pattern is a good one
		for _, dir := range parts {
			m.Bytes += sizes(dir)
		}
		if image, _ := plan.Arg("jname"); image != "" {
			if !strings.Contains(image, "/") {
				image = p.path("import", image+".img")
			}
			m.Of = max(imageState(image).Data, 0)
		}
	case Clone:
		from, _ := plan.Arg("old")
		to, _ := plan.Arg("new")
		m.What = "copying " + from
		m.Bytes, m.Of = sizes(p.path("jails-data", to+"-data")), sizes(p.path("jails-data", from+"-data"))
	case Fetch:
		if list, dir, err := p.fetches(ctx, plan); err == nil {
			m.fetching(dir, list)
		}
	case Image:
		if file, source, err := p.copied(ctx, plan); err == nil {
			m.What, m.Bytes = "copying "+filepath.Base(file), fileState(partial(file)).Size
			if info, err := os.Stat(source); err == nil && info.Mode().IsRegular() {
				m.Of = info.Size()
			}
		}
	case Transfer:
		to, _ := plan.Arg("to")
		part := filepath.Join("jails-data", plan.Guest+"-data")
		m.What = "copying " + plan.Guest
		m.Bytes = sizes(filepath.Join(to, "jails-data", ".cbsdmq-"+plan.Guest, part))
		m.Of = sizes(p.path(part))
		if done := sizes(filepath.Join(to, part)); done > 0 && m.Bytes == 0 {
			m.What, m.Bytes = "comparing "+plan.Guest, done
		}
	case Start, Restart:
		p.measureStart(ctx, plan.Guest, &m)
	}
	if m.Bytes == 0 || m.Of == 0 {
		m.Percent = max(percent(stderr), percent(stdout))
	}
	return m
}

// measureStart looks at what a start may have to do first: fetch the image of
// the guest's profile, and copy it.
func (p *Pool) measureStart(ctx context.Context, name string, m *Moved) {
	if name == "" || !exists(p.guestDB(name)) {
		return
	}
	settings, err := p.store.record(ctx, p.guestDB(name), allSettings)
	if err != nil || settings["vm_os_profile"] == "" {
		return
	}
	file := "vm-" + settings["vm_os_type"] + "-" + settings["vm_os_profile"] + ".conf"
	pr, ok := readProfile(p.path("etc", file))
	if !ok {
		pr, ok = readProfile(p.path("etc", "defaults", file))
	}
	if !ok {
		return
	}
	m.fetching(p.path("src", "iso"), []Profile{pr})
	if m.Bytes > 0 || !pr.Cloud {
		return
	}
	image, disk := fileState(p.Image(pr)), fileState(p.path("jails-data", name+"-data", "dsk1.vhd"))
	if image.Size > 0 && disk.Exists && disk.Size < image.Size {
		m.What, m.Bytes, m.Of = "copying the image of "+pr.Name, disk.Size, image.Size
	}
}

// fetching finds the part of an image that is being fetched or unpacked.
func (m *Moved) fetching(dir string, list []Profile) {
	for _, pr := range list {
		if part := fileState(filepath.Join(dir, pr.Dist)); part.Exists && pr.Dist != pr.File {
			m.What, m.Bytes, m.Of = "downloading "+pr.Name, part.Size, pr.Size
			raw := fileState(filepath.Join(dir, strings.TrimSuffix(pr.Dist, filepath.Ext(pr.Dist))))
			if raw.Exists && raw.Size > 0 && pr.Cloud {
				m.What, m.Bytes, m.Of = "unpacking "+pr.Name, raw.Size, max(pr.Disk, raw.Size)
			}
			return
		}
	}
}

// sizes sums up the files of a directory, not of those below it: a guest's
// disks.
func sizes(dir string) (sum int64) {
	f, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer f.Close()
	entries, err := f.Readdir(measuredFiles)
	if err != nil {
		return 0
	}
	for _, info := range entries {
		if info.Mode().IsRegular() {
			sum += info.Size()
		}
	}
	return sum
}

// percentage is how commands print how far they are: "Progress: 40%" of CBSD's
// cfetch, "WIP: [0%...14%" of its cbsdtee, and the lines of fetch(1) and rsync(1).
var percentage = regexp.MustCompile(`(^|[^0-9])([0-9]{1,3})(\.[0-9]+)?%`)

// percent finds the last percentage in the last line of text, or -1. A line ends
// with a line feed or, in what a terminal would overwrite, a carriage return.
func percent(text []byte) int {
	text = bytes.TrimRight(text, " \r\n")
	text = text[bytes.LastIndexAny(text, "\r\n")+1:]
	if !bytes.Contains(text, []byte("%")) || len(text) > 512 {
		text = text[max(0, len(text)-512):]
	}
	all := percentage.FindAllSubmatch(text, -1)
	if len(all) == 0 {
		return -1
	}
	n, err := strconv.Atoi(string(all[len(all)-1][2]))
	if err != nil || n > 100 {
		return -1
	}
	return n
}
