package cbsd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// exported is the image file that plan writes.
func (p *Pool) exported(plan Plan) string {
	dir, _ := plan.Arg("dstdir")
	if dir == "" {
		dir = p.path("export")
	}
	name, _ := plan.Arg("imgname")
	if name == "" {
		name = plan.Guest
	}
	return filepath.Join(dir, name+".img")
}

// imageEnd is what the last part of a complete image ends with. The parts are
// appended one after the other.
var imageEnd = regexp.MustCompile(`(^|\n)___NCSTOP_(DATA|ZVOL_[A-Za-z0-9_.-]+)=1\s*$`)

// imageFlat is what the head of an image says about the size of what tar packed,
// once it was packed.
var imageFlat = regexp.MustCompile(`\nimg_flat_size="?([0-9]{1,18})"?\n`)

// imageState reads an image file.
func imageState(path string) FileState {
	s := fileState(path)
	if !s.Exists {
		return s
	}
	f, err := os.Open(path)
	if err != nil {
		return s
	}
	defer f.Close()
	tail := make([]byte, min(s.Size, 256))
	n, _ := f.ReadAt(tail, s.Size-int64(len(tail))) // what is not there has no end
	s.Complete = imageEnd.Match(tail[:n])
	head := make([]byte, min(s.Size, 8<<10))
	n, _ = f.ReadAt(head, 0)
	s.Data = -1
	if m := imageFlat.FindSubmatch(head[:n]); m != nil {
		s.Data, _ = strconv.ParseInt(string(m[1]), 10, 64) // digits; a number beyond all bounds is not looked at
	}
	return s
}

// judgeExport judges bexport and jexport. A pipe in them can fail without their
// noticing it.
func (p *Pool) judgeExport(plan Plan, before, now Snapshot) finding {
	file := p.exported(plan)
	was, is := before.Files[file], now.Files[file]
	name := plan.Guest
	guest, known := now.Guests[name]
	switch {
	case known && !guest.Exists:
		return finding{why: missing(name, guest)}
	case !is.Exists:
		f := finding{why: fmt.Sprintf("%s was not exported: there is no %s", name, file)}
		if guest.Running && guest.Emulator == bhyve {
			f.hint = "it runs: stop it first"
		}
		return f
	case was.Exists && was.Size == is.Size && was.Modified.Equal(is.Modified):
		f := finding{why: fmt.Sprintf("%s was not exported: %s is as it was", name, file)}
		if guest.Running && guest.Emulator == bhyve {
			f.hint = "it runs: stop it first"
		}
		return f
	case !is.Complete:
		return finding{why: fmt.Sprintf("%s ends before its data does: it is not a whole image", file), hint: "make room on its file system and export again; remove this one with: rm " + file}
	}
	if disks := allocated(guest); is.Data >= 0 && (is.Data == 0 || is.Data < disks) {
		return finding{why: fmt.Sprintf("%s is not a whole image: %d bytes were packed into it", file, is.Data),
			hint: "export again, and look at what tar says on stderr; remove this one with: rm " + file}
	}
	return finding{met: true}
}

// allocated is how much the disks of a VM take that are files: an image cannot
// have less in it.
func allocated(g GuestState) (sum int64) {
	for disk := range g.Disks {
		info, err := os.Lstat(filepath.Join(g.Data, disk))
		if err == nil && info.Mode().IsRegular() && !filepath.IsAbs(disk) {
			sum += blocks(info)
		}
	}
	return sum
}

// judgeImport judges bimport and jimport, which end with status 0 whatever
// happened. What they made half stays.
func (p *Pool) judgeImport(plan Plan, name string, before Snapshot, was, is GuestState) finding {
	if !is.Exists {
		f := finding{had: was.Exists, why: name + " was not imported"}
		left := slices.DeleteFunc(p.leftovers(plan, name), func(path string) bool { return before.Files[path].Exists })
		if len(left) > 0 {
			f.hint = "parts of it are left: rm -r " + strings.Join(left, " ")
		}
		return f
	}
	if was.Exists {
		return finding{met: true, had: true}
	}
	again := "remove " + name + " and import again"
	for disk := range is.Disks {
		if !filepath.IsAbs(disk) && !isFile(is.Data, disk) {
			return finding{why: fmt.Sprintf("%s has no disk %s", name, disk), hint: again}
		}
	}
	if is.Data != "" && !exists(is.Data) {
		return finding{why: fmt.Sprintf("%s has no data: there is no %s", name, is.Data), hint: again}
	}
	return finding{met: true}
}

// leftovers lists the files of a guest that has no row in CBSD's tables: what a
// command that makes guests left behind.
func (p *Pool) leftovers(plan Plan, name string) []string {
	if !guestName.MatchString(name) {
		return nil
	}
	var left []string
	for _, path := range []string{
		p.path("jails-data", name+"-data"), p.path("jails-system", name),
		p.path("jails-fstab", name), p.path("jails-rcconf", "rc.conf_"+name),
	} {
		if exists(path) {
			left = append(left, path)
		}
	}
	if plan.Verb == Import {
		for _, dir := range []string{"jails-data", "jails-system"} {
			more, _ := filepath.Glob(filepath.Join(p.path(dir), "tmp.*")) // the pattern is a good one
			left = append(left, slices.DeleteFunc(more, ofLiveProcess)...)
		}
	}
	return left
}

// ofLiveProcess reports whether a directory tmp.PID is that of a command that
// runs: another import.
func ofLiveProcess(path string) bool {
	pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Ext(path), "."))
	if err != nil {
		return true // it is named otherwise
	}
	_, alive := live(pid)
	return alive
}

// readFiles reads the files that plan is to make.
func (p *Pool) readFiles(ctx context.Context, plan Plan) (map[string]FileState, error) {
	switch plan.Verb {
	case Export:
		file := p.exported(plan)
		return map[string]FileState{file: imageState(file)}, nil
	case Fetch:
		return p.readFetches(ctx, plan)
	case Image:
		file, _, err := p.copied(ctx, plan)
		if err != nil {
			return nil, err
		}
		return map[string]FileState{file: fileState(file), partial(file): fileState(partial(file))}, nil
	}
	var files map[string]FileState
	for _, path := range p.traces(plan) {
		if files == nil {
			files = make(map[string]FileState)
		}
		files[path] = fileState(path)
	}
	return files, nil
}
