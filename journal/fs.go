package journal

import (
	"fmt"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// checkFilesystem refuses file systems whose shared memory or locks do not do
// what a write-ahead log needs (sqlite.org/wal.html).
func checkFilesystem(dir string) error {
	name, err := filesystem(dir)
	if err != nil {
		return explain("asking for the file system of", dir, err)
	}
	if !unfit(name) {
		return nil
	}
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal", "%s is on %s, where SQLite's write-ahead log is not safe", dir, name).
		WithHint(`put the journal on a local disk (key "journal"), or set "journal_mode":"delete"`)
}

// unfit reports whether a file system is shared over a network, or may be. The
// names are those of mount(8) on FreeBSD and Linux.
func unfit(name string) bool {
	if strings.HasPrefix(name, "fuse") { // fusefs.sshfs on FreeBSD
		return true
	}
	switch name {
	case "nfs", "smbfs", "cifs", "9p", "p9fs", "ceph", "afs":
		return true
	}
	return false
}

// linuxFilesystem names a file system by its magic number (statfs(2)); of
// those that are not unfit only the number.
func linuxFilesystem(magic uint32) string {
	switch magic {
	case 0x6969:
		return "nfs"
	case 0x517b:
		return "smbfs"
	case 0xff534d42, 0xfe534d42: // SMB 1; 2 and later
		return "cifs"
	case 0x65735546:
		return "fuse"
	case 0x01021997:
		return "9p"
	case 0x00c36400:
		return "ceph"
	case 0x5346414f, 0x6b414653:
		return "afs"
	}
	return fmt.Sprintf("%#x", magic)
}
