package cbsd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// inventoryMax bounds what is read of nc.inventory and of a profile.
const inventoryMax = 64 << 10

// filesystem is what CBSD thinks of the pool's file system: the lines zfsfeat
// and fs of nc.inventory, which each of its commands reads. known is false where
// they cannot be read.
func (p *Pool) filesystem() (zfs bool, name string, known bool) {
	vars, err := readShell(p.path("nc.inventory"))
	if err != nil || vars["zfsfeat"] == "" {
		return false, "", false
	}
	return vars["zfsfeat"] == "1", vars["fs"], true
}

// needsZFS names the part of plan that only ZFS can do, "" where nothing is:
// the field of the job that asks for it.
func needsZFS(plan *Plan) (field string, need bool) {
	switch plan.Command {
	case "bsnapshot", "jsnapshot":
		fs, _ := plan.Arg("snapfs")
		return "", fs == "" || fs == "zfs"
	case "attachzfs", "detachzfs", "zfs-migrator", "zfs-recv":
		return "", true
	case "bhyve-dsk":
		mode, _ := plan.Arg("mode")
		for _, name := range []string{"dsk_size", "dsk_zfs_guid"} {
			if _, asked := plan.Arg(name); asked && mode == "modify" {
				return "CommandArgs." + name, true
			}
		}
	case "fetch_iso":
		if v, _ := plan.Arg("conv2zvol"); v == "1" {
			return "CommandArgs.conv2zvol", true
		}
	}
	return "", false
}

// checkZFS refuses what only ZFS can do where there is none.
func (p *Pool) checkZFS(plan *Plan) error {
	field, need := needsZFS(plan)
	if !need {
		return nil
	}
	zfs, name, known := p.filesystem()
	if zfs || !known {
		return nil
	}
	hint := "a pool on ZFS can do it"
	switch {
	case strings.HasSuffix(plan.Command, "snapshot"):
		hint = plan.Command[:1] + "export writes a copy of a guest that is off, on any file system"
	case plan.Command == "fetch_iso":
		hint = "leave it out: the image is fetched as a file"
	case plan.Command == "bhyve-dsk":
		hint = "attach another disk: bhyve-dsk mode=attach"
	}
	if name == "zfs" {
		return refuse(field, "needs ZFS; it is off in "+p.cfg.Workdir, "set zfsfeat=1 in its environment: cbsd initenv-tui")
	}
	return refuse(field, fmt.Sprintf("needs ZFS; %s is %s", p.cfg.Workdir, cmp.Or(name, "on another file system")), hint)
}

// snapshots lists the snapshots that CBSD has made of a guest, the oldest first.
// A simulated pool has a directory in place of ZFS, see cbsdsim.ZFSDir.
func (p *Pool) snapshots(ctx context.Context, name string) ([]string, error) {
	if dir := p.path("var", "run", "zfs"); exists(dir) {
		entries, err := os.ReadDir(p.path("var", "run", "zfs", name))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		slices.SortStableFunc(entries, func(a, b os.DirEntry) int { return mtime(a).Compare(mtime(b)) })
		names := make([]string, len(entries))
		for i, e := range entries {
			names[i] = e.Name()
		}
		return names, nil
	}
	if zfs, _, known := p.filesystem(); known && !zfs {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, toolWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, zfsCommand, "list", "-H", "-t", "snapshot", "-r", "-s", "creation",
		"-o", "cbsdsnap:jname,cbsdsnap:snapname", p.path("jails-data")).Output()
	if err != nil {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	return parseSnapshots(string(out), name), nil
}

// parseSnapshots reads the properties that CBSD gives to its snapshots. Others
// have none, a dash.
func parseSnapshots(out, guest string) []string {
	var names []string
	for line := range strings.Lines(out) {
		owner, name, ok := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		if ok && owner == guest && name != "-" && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// judgeSnapshots judges jsnapshot and bsnapshot. CBSD ends with status 0 where a
// snapshot to destroy is not there.
func judgeSnapshots(plan Plan, name string, was, is GuestState, code int) finding {
	snap, _ := plan.Arg("snapname")
	had, has := slices.Contains(was.Snapshots, snap), slices.Contains(is.Snapshots, snap)
	switch mode, _ := plan.Arg("mode"); mode {
	case "create":
		if snap == "gettimeofday" || snap == "" {
			fresh := slices.ContainsFunc(is.Snapshots, func(s string) bool { return !slices.Contains(was.Snapshots, s) })
			return finding{met: fresh, why: name + " has no new snapshot"}
		}
		return finding{met: has, had: had, why: fmt.Sprintf("%s has no snapshot %s", name, snap)}
	case "destroy":
		return finding{met: snap != "" && !has, had: !had, why: fmt.Sprintf("snapshot %s of %s is still there", snap, name)}
	case "destroyall":
		return finding{
			met: len(is.Snapshots) == 0, had: len(was.Snapshots) == 0,
			why: fmt.Sprintf("%s still has %d snapshots", name, len(is.Snapshots)),
		}
	case "rollback":
		// What is asked for is that nothing is newer; whether the data went back
		// only the status tells.
		f := finding{met: has && is.Snapshots[len(is.Snapshots)-1] == snap && code == 0}
		switch {
		case !has:
			f.why = fmt.Sprintf("%s has no snapshot %s", name, snap)
			if len(is.Snapshots) > 0 {
				f.hint = "it has " + clip(strings.Join(is.Snapshots, ", "), reasonMax)
			}
		case code == 0:
			f.why = fmt.Sprintf("%s still has snapshots that are newer than %s", name, snap)
		default:
			f.why = fmt.Sprintf("%s was not rolled back to %s", name, snap)
		}
		return f
	}
	return finding{none: true}
}

// readShell reads the assignments of a file that CBSD sources: NAME="VALUE",
// one a line. Of values that name other variables those are put in that the file
// sets before; anything more is not understood and left as it is.
func readShell(file string) (map[string]string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > inventoryMax {
		return nil, fmt.Errorf("%s is not a file of settings", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	vars := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, inventoryMax)
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || !argName.MatchString(name) || value == "" {
			continue
		}
		switch quote := value[0]; quote {
		case '"', '\'':
			end := strings.IndexByte(value[1:], quote)
			if end < 0 {
				continue
			}
			value = value[1 : 1+end]
			if quote == '"' {
				value = expand(value, vars)
			}
		default:
			value, _, _ = strings.Cut(value, " ")
			value = expand(strings.TrimRight(value, ";"), vars)
		}
		vars[name] = value
	}
	return vars, lines.Err()
}

// expand puts the values of variables that are known into text.
func expand(text string, vars map[string]string) string {
	return variableUse.ReplaceAllStringFunc(text, func(use string) string {
		if v, ok := vars[strings.Trim(use, "${}")]; ok {
			return v
		}
		return use
	})
}
