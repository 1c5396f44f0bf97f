package cbsd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A dataset is one of a guest's.
type dataset struct {
	name, kind string
	origin     string // the snapshot that it is a clone of
	encryption string // off, or the cipher
	size       int64  // an upper bound of what it takes as a copy of its own
}

// A zfsSnapshot is one that a dataset has.
type zfsSnapshot struct {
	name, guid string
	tags       [2]string // those by which CBSD knows its snapshots
}

var snapshotTags = [2]string{"cbsdsnap:jname", "cbsdsnap:snapname"}

// zfs runs zfs(8) and returns what it prints, without the last line's end.
func zfs(ctx context.Context, args ...string) (string, error) {
	out, err := run(ctx, zfsCommand, args...)
	return strings.TrimRight(string(out), "\n"), err
}

// hasDataset reports whether a dataset or snapshot is there.
func hasDataset(ctx context.Context, name string) (bool, error) {
	_, err := zfs(ctx, "get", "-H", "-o", "value", "type", name)
	if err != nil && strings.HasSuffix(err.Error(), "does not exist") {
		return false, nil
	}
	return err == nil, err
}

// destroy removes a dataset, or a snapshot of it and of what is below it, where it
// is there.
func destroy(ctx context.Context, name string) error {
	has, err := hasDataset(ctx, name)
	if err == nil && has {
		_, err = zfs(ctx, "destroy", "-r", name)
	}
	return err
}

// datasets lists a dataset and what is below it.
func datasets(ctx context.Context, name string) ([]dataset, error) {
	out, err := zfs(ctx, "list", "-H", "-p", "-t", "filesystem,volume", "-o", "name,type,origin,encryption,used,referenced", "-r", name)
	if err != nil {
		return nil, err
	}
	var list []dataset
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 6 {
			return nil, fmt.Errorf("zfs list: the line is not understood: %q", line)
		}
		used, err1 := strconv.ParseInt(f[4], 10, 64)
		referenced, err2 := strconv.ParseInt(f[5], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if f[0] == name { // what is below counts itself
			used = 0
		}
		list = append(list, dataset{f[0], f[1], f[2], f[3], max(used, referenced)})
	}
	return list, nil
}

// snapshotsOf lists the snapshots of one dataset, the oldest first.
func snapshotsOf(ctx context.Context, name string) ([]zfsSnapshot, error) {
	out, err := zfs(ctx, "list", "-H", "-p", "-t", "snapshot", "-d", "1", "-s", "createtxg", "-o", "name,guid,"+strings.Join(snapshotTags[:], ","), name)
	if err != nil {
		return nil, err
	}
	var list []zfsSnapshot
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("zfs list: the line is not understood: %q", line)
		}
		list = append(list, zfsSnapshot{f[0], f[1], [2]string{f[2], f[3]}})
	}
	return list, nil
}

// retag gives CBSD's tags to the snapshots of a copy. What comes with a stream is
// a received property, and CBSD looks for local ones; nor does it come with the
// rest of a stream that was cut short.
func retag(ctx context.Context, to string, all []zfsSnapshot) error {
	for _, s := range all {
		args := []string{"set"}
		for i, tag := range s.tags {
			if tag != "-" {
				args = append(args, snapshotTags[i]+"="+tag)
			}
		}
		_, name, _ := strings.Cut(s.name, "@")
		if len(args) == 1 {
			continue
		}
		if _, err := zfs(ctx, append(args, to+"@"+name)...); err != nil {
			return err
		}
	}
	return nil
}
