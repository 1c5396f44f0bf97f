package cbsd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profilesMax bounds how many profiles of a pool are read. CBSD 14.1 has 130.
const profilesMax = 2048

var variableUse = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}|\$[A-Za-z_][A-Za-z0-9_]*`)

// A Profile is a template for VMs whose image CBSD can fetch.
type Profile struct {
	Name  string // the value of vm_os_profile, and of fetch_iso name=
	OS    string // the value of vm_os_type
	Title string
	Cloud bool   // its image is a disk, not a CD
	Path  string // of the profile
	File  string // the image below src/iso
	Dist  string // the name under which it is fetched
	Size  int64  // of what is fetched, in bytes; 0 where the profile does not say
	Disk  int64  // of a cloud image when it is unpacked, at least; 0 where the profile does not say
}

// Profiles lists the VM profiles of the pool that fetch_iso knows, by name.
// Those below etc stand before those of etc/defaults with the same name.
func (p *Pool) Profiles(context.Context) ([]Profile, error) {
	var list []Profile
	seen := make(map[string]bool)
	left := profilesMax
	for _, dir := range []string{p.path("etc"), p.path("etc", "defaults")} {
		files, _ := filepath.Glob(filepath.Join(dir, "vm-*.conf")) // the pattern is a good one
		for _, file := range files {
			if left--; left < 0 {
				break
			}
			pr, ok := readProfile(file)
			if ok && !seen[pr.Name] {
				seen[pr.Name] = true
				list = append(list, pr)
			}
		}
	}
	if len(list) == 0 && !exists(p.path("etc", "defaults")) {
		return nil, fmt.Errorf("reading profiles: there is no %s", p.path("etc", "defaults"))
	}
	slices.SortFunc(list, func(a, b Profile) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// readProfile reads a profile; false for one that fetch_iso passes over: it
// takes those that show_profile_list calls active for bhyve.
func readProfile(file string) (Profile, bool) {
	v, err := readShell(file)
	if err != nil || v["vm_profile"] == "" || v["bhyve_active"] != "1" || v["fetch"] != "1" ||
		v["iso_site"] == "" || v["sha256sum"] == "0" || v["sha256sum"] == "" {
		return Profile{}, false
	}
	pr := Profile{
		Name: v["vm_profile"], OS: v["vm_os_type"], Title: v["long_description"], Path: file,
		Cloud: v["is_cloud"] == "1",
		File:  v["register_iso_name"], Dist: v["iso_img"],
	}
	if v["iso_img_dist"] != "" {
		pr.Dist = v["iso_img_dist"]
	}
	if pr.File == "" {
		pr.File = v["iso_img"]
	}
	for _, name := range []string{pr.File, pr.Dist} {
		if name == "" || strings.ContainsAny(name, "/$") {
			return Profile{}, false
		}
	}
	pr.Size, _ = strconv.ParseInt(v["iso_img_dist_size"], 10, 64)
	if pr.Cloud {
		pr.Disk, _ = parseSize(v["imgsize_min"])
	}
	return pr, true
}

// Image is where the image of a profile lies in the pool once it is fetched.
func (p *Pool) Image(pr Profile) string { return p.path("src", "iso", pr.File) }

// A FileState is one file at one moment; the zero value is that of one that is
// not there.
type FileState struct {
	Exists   bool      `json:"exists,omitempty"`
	Size     int64     `json:"size,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
	Link     bool      `json:"link,omitempty"`     // to a volume, on ZFS
	Complete bool      `json:"complete,omitempty"` // it has an end; read only for exports
	Data     int64     `json:"data,omitempty"`     // bytes of data that were packed into it, -1 where it does not say; read only for exports
}

func fileState(path string) FileState {
	info, err := os.Lstat(path)
	if err != nil {
		return FileState{}
	}
	return FileState{
		Exists: true, Size: info.Size(), Modified: info.ModTime().Round(0),
		Link: info.Mode()&os.ModeSymlink != 0,
	}
}

// fetches lists the profiles whose images plan fetches, and the directory that
// they go to.
func (p *Pool) fetches(ctx context.Context, plan Plan) (list []Profile, dir string, err error) {
	all, err := p.Profiles(ctx)
	if err != nil {
		return nil, "", err
	}
	name, named := plan.Arg("name")
	path, pathed := plan.Arg("path")
	cloud, _ := plan.Arg("cloud")
	for _, pr := range all {
		switch {
		case named && name != "" && pr.Name != name:
		case pathed && path != "" && filepath.Base(pr.Path) != filepath.Base(path):
		case name == "" && path == "" && pr.Cloud != (cloud == "1"):
		default:
			list = append(list, pr)
		}
	}
	if dir, _ = plan.Arg("dstdir"); dir == "" || dir == "default" {
		dir = p.path("src", "iso")
	}
	return list, dir, nil
}

// target is the file that fetch_iso makes of a profile.
func target(plan Plan, dir string, pr Profile) string {
	if keep, _ := plan.Arg("keepname"); keep == "1" {
		return filepath.Join(dir, pr.Dist)
	}
	return filepath.Join(dir, pr.File)
}

// readFetches reads the files that fetch_iso is to make.
func (p *Pool) readFetches(ctx context.Context, plan Plan) (map[string]FileState, error) {
	list, dir, err := p.fetches(ctx, plan)
	if err != nil {
		return nil, err
	}
	files := make(map[string]FileState, len(list))
	for _, pr := range list {
		file := target(plan, dir, pr)
		files[file] = fileState(file)
		for _, part := range []string{pr.Dist, pr.Dist + ".lock"} {
			if s := fileState(filepath.Join(dir, part)); s.Exists {
				files[filepath.Join(dir, part)] = s
			}
		}
	}
	return files, nil
}

// judgeFetch judges fetch_iso, which ends with status 0 whatever happened.
func (p *Pool) judgeFetch(ctx context.Context, plan Plan, before, now Snapshot, tail []byte) finding {
	for _, only := range []string{"purgeonly", "convonly"} {
		if v, _ := plan.Arg(only); v != "" && v != "0" {
			return finding{none: true}
		}
	}
	list, dir, err := p.fetches(ctx, plan)
	if err != nil {
		return finding{none: true}
	}
	if name, _ := plan.Arg("name"); len(list) == 0 {
		if name == "" {
			return finding{why: "there is no such profile"}
		}
		f := finding{why: fmt.Sprintf("there is no profile %s that can be fetched", name)}
		if near := p.nearestProfile(ctx, name); near != "" {
			f.hint = "did you mean " + near + "?"
		}
		return f
	}
	f := finding{met: true, had: true}
	zvol, _ := plan.Arg("conv2zvol")
	for _, pr := range list {
		file := target(plan, dir, pr)
		is := now.Files[file]
		if !is.Exists && len(list) == 1 && nothingFetched(tail) {
			return finding{
				why:  pr.Name + " was not fetched: nothing was downloaded: its mirrors cannot be reached from here, or do not have it",
				told: true,
				hint: p.mirrorHint(pr, leftFetch(dir, pr)),
			}
		}
		if !is.Exists {
			return finding{why: fmt.Sprintf("%s was not fetched: there is no %s", pr.Name, file), hint: leftFetch(dir, pr)}
		}
		if zvol == "1" && pr.Cloud && !is.Link {
			return finding{why: fmt.Sprintf("%s was fetched, but it is a file, not a volume", pr.Name)}
		}
		f.had = f.had && before.Files[file].Exists && before.Files[file].Link == is.Link
	}
	return f
}

var wrongSum = regexp.MustCompile(`Invalid CRC: ([0-9a-f]{64})`)

// nothingFetched reports whether fetch_iso printed that no mirror gave it a
// byte: all that it compared was empty, or it knew no size and compared nothing.
func nothingFetched(tail []byte) bool {
	tail = escapes.ReplaceAll(tail, nil)
	empty := fmt.Sprintf("%x", sha256.Sum256(nil))
	sums := wrongSum.FindAllSubmatch(tail, -1)
	for _, sum := range sums {
		if string(sum[1]) != empty {
			return false
		}
	}
	return len(sums) > 0 || bytes.Contains(tail, []byte("\nSize: 0 Mb"))
}

// mirrorHint says where to look when no mirror gives the image of pr.
func (p *Pool) mirrorHint(pr Profile, left string) string {
	hint := fmt.Sprintf("they are iso_site in %s; behind a proxy set http_proxy and https_proxy in %s", pr.Path, p.path("etc", "global.conf"))
	if left != "" {
		hint += "; " + left
	}
	return hint
}

func (p *Pool) nearestProfile(ctx context.Context, name string) string {
	all, err := p.Profiles(ctx)
	if err != nil {
		return ""
	}
	names := make([]string, len(all))
	for i, pr := range all {
		names[i] = pr.Name
	}
	near, _ := nearest(name, names)
	return near
}

// leftFetch names what a download that failed has left in dir, with the command
// that removes it.
func leftFetch(dir string, pr Profile) string {
	for _, name := range []string{pr.Dist, pr.Dist + ".lock"} {
		if file := filepath.Join(dir, name); name != pr.File && exists(file) {
			return "a part of it is left: rm " + file
		}
	}
	return ""
}

// mtime is when an entry of a directory was changed.
func mtime(e os.DirEntry) time.Time {
	info, err := e.Info()
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
