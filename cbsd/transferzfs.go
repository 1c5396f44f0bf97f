package cbsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
)

// On ZFS the data of a guest are a file system ROOT/GUEST, where ROOT is the
// dataset of jails-data, and volumes below it for the disks of a VM. They are
// sent from a snapshot that is taken once the guest is unregistered, and the
// guids of the snapshots prove that the same is there: ZFS has checked the sums
// of what it received. A stream that was cut short is taken up where it was.

// moveSnapshot is the snapshot from which a guest is sent.
const moveSnapshot = "cbsdmq-transfer"

// maxStreams bounds how often one dataset is sent: its first snapshot, the
// others, and what was cut short of each.
const maxStreams = 8

// volumes is where the devices of ZFS volumes are.
const volumes = "/dev/zvol/"

// locate finds out whether the guest is moved by ZFS, and from where to where.
func (t *transfer) locate(ctx context.Context) error {
	here, _, _ := t.from.filesystem()
	there, _, _ := t.to.filesystem()
	if here != there {
		on, not := t.from.cfg.Workdir, t.to.cfg.Workdir
		if there {
			on, not = not, on
		}
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is on ZFS, and %s is not", on, not).
			WithHint("export the guest, copy the image, and import it: bexport, bimport")
	}
	if !here {
		return nil
	}
	if strings.Contains(t.guest, "@") { // it would be a snapshot
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is no name of a dataset", t.guest)
	}
	for p, name := range map[*Pool]*string{t.from: &t.source, t.to: &t.target} {
		root, err := zfs(ctx, "get", "-H", "-o", "value", "name", p.path("jails-data"))
		if err != nil {
			return fmt.Errorf("finding the dataset of %s: %w", p.path("jails-data"), err)
		}
		*name = root + "/" + t.guest
	}
	return nil
}

// checkDatasets refuses what cannot be sent, before anything is touched. resume:
// what is there is of an earlier attempt.
func (t *transfer) checkDatasets(ctx context.Context, resume bool) error {
	list, err := datasets(ctx, t.source)
	if err != nil || len(list) == 0 || list[0].kind != "filesystem" {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is on ZFS, and %s has no dataset %s there", t.from.cfg.Workdir, t.guest, t.source).
			WithHint("export the guest, copy the image, and import it: bexport, bimport")
	}
	need := int64(0)
	for _, d := range list {
		need += d.size
		if d.kind != "volume" && d.name != t.source {
			return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s has a dataset of its own below it, %s", t.guest, d.name).
				WithHint("move what is in it into the guest's own dataset, or zfs send all of it by hand")
		}
		if d.encryption != "off" && d.encryption != "-" { // it cannot be sent with its properties but raw, under a key that is not there
			return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is encrypted", d.name).
				WithHint("export the guest, copy the image, and import it: bexport, bimport")
		}
	}
	clones, err := zfs(ctx, "list", "-H", "-t", "snapshot", "-o", "clones", "-r", t.source)
	if err != nil {
		return err
	}
	for clone := range strings.FieldsSeq(clones) {
		if clone != "-" {
			return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is a clone of %s, which could not be removed here", clone, t.guest).
				WithHint("zfs promote %s, if it may take over what they share", clone)
		}
	}
	mount, err := t.mountpoint(ctx)
	if err != nil {
		return err
	}
	has, err := hasDataset(ctx, t.target)
	if err != nil {
		return err
	}
	if has && !resume {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "the dataset %s is there already", t.target).
			WithHint("it belongs to no guest of %s: look at it, and rename it", t.to.cfg.Workdir)
	}
	if files, err := os.ReadDir(mount); err == nil && len(files) > 0 && !resume {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is there already", mount).
			WithHint("it belongs to no guest of %s: look at it, and move it away", t.to.cfg.Workdir)
	}
	out, err := zfs(ctx, "get", "-H", "-p", "-o", "value", "available", filepath.Dir(t.target))
	if err != nil {
		return err
	}
	free, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		return fmt.Errorf("zfs get available %s: %w", filepath.Dir(t.target), err)
	}
	return t.checkRoom(need, free)
}

// mountpoint is where the guest's file system is to be mounted in the other
// environment: where it is here, below it.
func (t *transfer) mountpoint(ctx context.Context) (string, error) {
	at, err := zfs(ctx, "get", "-H", "-o", "value", "mountpoint", t.source)
	if err != nil {
		return "", err
	}
	below, err := filepath.Rel(t.from.cfg.Workdir, at)
	if err != nil || !filepath.IsLocal(below) || below == "." {
		return "", cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is mounted at %s, not in %s", t.source, at, t.from.cfg.Workdir).
			WithHint("zfs set mountpoint=%s %s", t.from.path("jails-data", t.guest+"-data"), t.source)
	}
	return t.to.path(below), nil
}

// dropStale removes what an earlier attempt has left, after which the guest may
// have been changed.
func (t *transfer) dropStale(ctx context.Context) error {
	if t.source == "" {
		return nil
	}
	has, err := hasDataset(ctx, t.source)
	if err != nil || !has {
		return err
	}
	return errors.Join(destroy(ctx, t.target), destroy(ctx, t.source+"@"+moveSnapshot))
}

// send brings the datasets over, and mounts the file system.
func (t *transfer) send(ctx context.Context) error {
	taken, err := hasDataset(ctx, t.source+"@"+moveSnapshot)
	if err != nil {
		return err
	}
	if !taken {
		if _, err := zfs(ctx, "snapshot", "-r", t.source+"@"+moveSnapshot); err != nil {
			return err
		}
	}
	list, err := datasets(ctx, t.source)
	if err != nil {
		return err
	}
	mount, err := t.mountpoint(ctx)
	if err != nil {
		return err
	}
	for _, d := range list {
		var set []string
		if d.name == t.source {
			set = []string{"-o", "mountpoint=" + mount}
		}
		if err := t.sendOne(ctx, d.name, t.counterpart(d.name), set); err != nil {
			return err
		}
	}
	at, err := zfs(ctx, "get", "-H", "-o", "value", "mountpoint,mounted", t.target)
	if err != nil {
		return err
	}
	where, mounted, _ := strings.Cut(at, "\n")
	if where != mount { // it was cut short before that was written
		if _, err := zfs(ctx, "set", "mountpoint="+mount, t.target); err != nil {
			return err
		}
	}
	if mounted != "yes" || where != mount {
		if _, err := zfs(ctx, "mount", t.target); err != nil {
			return err
		}
	}
	return t.relink(mount)
}

// counterpart is the name that one of the guest's datasets has there.
func (t *transfer) counterpart(name string) string {
	return t.target + strings.TrimPrefix(name, t.source)
}

// sendOne sends one dataset with its snapshots. The first one that is sent makes
// it, with the properties of the source and those of set.
func (t *transfer) sendOne(ctx context.Context, from, to string, set []string) error {
	for range maxStreams {
		all, err := snapshotsOf(ctx, from)
		if err != nil {
			return err
		}
		last := slices.IndexFunc(all, func(s zfsSnapshot) bool { return s.name == from+"@"+moveSnapshot })
		if last < 0 {
			return fmt.Errorf("%s has no snapshot %s", from, moveSnapshot)
		}
		var has []zfsSnapshot
		token := "-"
		begun, err := hasDataset(ctx, to)
		if err != nil {
			return err
		}
		if begun {
			if has, err = snapshotsOf(ctx, to); err != nil {
				return err
			}
			if token, err = zfs(ctx, "get", "-H", "-o", "value", "receive_resume_token", to); err != nil {
				return err
			}
		}
		common := last // the newest that both have
		for common >= 0 && !slices.ContainsFunc(has, func(s zfsSnapshot) bool { return s.guid == all[common].guid }) {
			common--
		}
		receive := []string{"receive", "-s", "-u"}
		var send []string
		switch {
		case token != "-" && token != "":
			send = []string{"send", "-t", token}
		case !begun:
			send, receive = []string{"send", "-p", all[0].name}, append(receive, set...)
		case common == last:
			return retag(ctx, to, all)
		case common < 0:
			return fmt.Errorf("%s is not a copy of %s", to, from)
		default:
			send = []string{"send", "-p", "-I", all[common].name, all[last].name}
		}
		if err := t.stream(ctx, from, send, append(receive, to)); err != nil {
			return fmt.Errorf("sending %s to %s: %w", from, to, err)
		}
	}
	return fmt.Errorf("%s is not whole after %d streams", to, maxStreams)
}

// stream runs a zfs send and the zfs receive that reads it, and says how far it is.
func (t *transfer) stream(ctx context.Context, name string, send, receive []string) error {
	t.say("sending %s: 0%%", name)
	size := t.streamSize(ctx, send)
	said := int64(0)
	s := stream{write: append([]string{zfsCommand}, send...), read: append([]string{zfsCommand}, receive...), lock: t.lock}
	s.passed = func(n int64) {
		if percent := n * 100 / max(size, 1); size > 0 && percent >= said+5 && percent < 100 {
			said = percent
			t.say("sending %s: %d%%", name, percent)
		}
	}
	writer, reader := s.run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if reader != nil && !fails(writer) {
		return reader
	}
	return errors.Join(writer, reader)
}

// streamSize is about how many bytes a zfs send will write, 0 where it does not say.
func (t *transfer) streamSize(ctx context.Context, send []string) int64 {
	out, err := zfs(ctx, slices.Insert(slices.Clone(send), 1, "-n", "-P")...)
	if err != nil {
		return 0
	}
	size := int64(0)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "size" {
			size, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return size
}

// sameSnapshots compares what was received with what was sent.
func (t *transfer) sameSnapshots(ctx context.Context) error {
	list, err := datasets(ctx, t.source)
	if err != nil {
		return err
	}
	copies, err := datasets(ctx, t.target)
	if err != nil {
		return err
	}
	if len(list) != len(copies) {
		return fmt.Errorf("%s has %d datasets, %s has %d", t.source, len(list), t.target, len(copies))
	}
	for _, d := range list {
		var guids [2]string
		for i, name := range []string{d.name, t.counterpart(d.name)} {
			if guids[i], err = zfs(ctx, "get", "-H", "-p", "-o", "value", "guid", name+"@"+moveSnapshot); err != nil {
				return err
			}
		}
		if guids[0] != guids[1] {
			return fmt.Errorf("%s is not what was sent of %s", t.counterpart(d.name), d.name)
		}
	}
	return nil
}

// proveDatasets looks whether the guest's data are there, and are those that it
// looks for: data is its directory.
func (t *transfer) proveDatasets(ctx context.Context, data string) error {
	at, err := zfs(ctx, "get", "-H", "-o", "value", "mountpoint,mounted", t.target)
	if err != nil {
		return err
	}
	where, mounted, _ := strings.Cut(at, "\n")
	if mounted != "yes" {
		return fmt.Errorf("%s is not mounted", t.target)
	}
	one, err1 := filepath.EvalSymlinks(where)
	two, err2 := filepath.EvalSymlinks(data)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if one != two {
		return fmt.Errorf("%s looks for its data in %s", t.guest, data)
	}
	return t.sameSnapshots(ctx)
}

// removeDatasets removes the guest's datasets here, once they are proven there.
func (t *transfer) removeDatasets(ctx context.Context) error {
	has, err := hasDataset(ctx, t.source)
	if err != nil {
		return err
	}
	if has {
		if err := t.destroySource(ctx); err != nil {
			return err
		}
	}
	return destroy(ctx, t.target+"@"+moveSnapshot)
}

func (t *transfer) destroySource(ctx context.Context) error {
	if err := t.sameSnapshots(ctx); err != nil {
		return err
	}
	list, err := datasets(ctx, t.source)
	if err != nil {
		return err
	}
	if _, err := zfs(ctx, "destroy", "-r", t.source); err != nil {
		return err
	}
	for _, d := range list {
		_, snapshot, _ := strings.Cut(d.origin, "@")
		if !strings.HasPrefix(snapshot+"-", "cbsd-original-"+t.guest+"-") && snapshot != "boot-"+t.guest {
			continue
		}
		if _, err := zfs(ctx, "destroy", d.origin); err != nil { // CBSD made it for the clone, and removes it with it
			t.say("%s is left: %v", d.origin, err)
		}
	}
	return nil
}

// undoDatasets removes what was sent, as long as the source is there.
func (t *transfer) undoDatasets(ctx context.Context) error {
	if t.source == "" {
		return nil
	}
	mount, err := t.mountpoint(ctx)
	if err == nil {
		err = t.dropStale(ctx)
	}
	if err == nil {
		_ = unix.Rmdir(mount) // it was made by the mount
	}
	return err
}
