package simulation

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// onWrite is asked before each write of SQLite to a file, and may refuse it. It
// is global as SQLite's table of system calls is; schedules run one after the
// other.
var onWrite atomic.Pointer[func() syscall.Errno]

// hookDisk puts a function of ours in the place of SQLite's pwrite.
var hookDisk = sync.OnceFunc(func() {
	db, err := sql.Open("sqlite", ":memory:") // so that SQLite is set up as its driver wants it
	if err != nil {
		panic(err)
	}
	defer db.Close()
	if err := db.Ping(); err != nil {
		panic(err)
	}
	tls := libc.NewTLS()
	vfs := sqlite3.Xsqlite3_vfs_find(tls, 0)
	v := (*sqlite3.Tsqlite3_vfs)(pointer(vfs))
	type pwrite = func(tls *libc.TLS, fd int32, buf uintptr, n uint64, at int64) int64
	get := *(*func(*libc.TLS, uintptr, uintptr) uintptr)(unsafe.Pointer(&struct{ p uintptr }{v.FxGetSystemCall}))
	set := *(*func(*libc.TLS, uintptr, uintptr, uintptr) int32)(unsafe.Pointer(&struct{ p uintptr }{v.FxSetSystemCall}))
	var name, address uintptr
	for _, called := range []string{"pwrite64", "pwrite"} { // by the system
		if name, err = libc.CString(called); err != nil {
			panic(err)
		}
		if address = get(tls, vfs, name); address != 0 {
			break
		}
	}
	real := *(*pwrite)(unsafe.Pointer(&struct{ p uintptr }{address}))
	ours = func(tls *libc.TLS, fd int32, buf uintptr, n uint64, at int64) int64 {
		if f := onWrite.Load(); f != nil {
			if errno := (*f)(); errno != 0 {
				*(*int32)(pointer(libc.X__errno_location(tls))) = int32(errno)
				return -1
			}
		}
		return real(tls, fd, buf, n, at)
	}
	if rc := set(tls, vfs, name, *(*uintptr)(unsafe.Pointer(&ours))); rc != sqlite3.SQLITE_OK {
		panic("SQLite does not let its writes be watched")
	}
})

// pointer is the address p, in memory that is not Go's, as a pointer.
func pointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// ours is kept here because SQLite holds its address as a number.
var ours func(tls *libc.TLS, fd int32, buf uintptr, n uint64, at int64) int64

// A disk is what lies under the journal of a schedule.
type disk struct {
	full     atomic.Bool // until the journal gives its reserve up; what that frees is soon used up
	readonly atomic.Bool
	reserve  string // path of the journal's reserve
	left     atomic.Int64
}

// write decides about one write.
func (d *disk) write() syscall.Errno {
	if d.readonly.Load() {
		return syscall.EROFS
	}
	if d.full.Load() {
		if _, err := os.Stat(d.reserve); err == nil || d.left.Add(-1) < 0 {
			return syscall.ENOSPC
		}
	}
	return 0
}

// copyTree copies the files below from to a new directory to. What is copied
// while SQLite appends to its log is what a crash right then would leave.
func copyTree(from, to string) error {
	entries, err := os.ReadDir(from) // by name: journal.sqlite is before its log
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.IsDir():
			err = copyTree(a, b)
		case filepath.Ext(a) == ".sqlite-shm" || filepath.Ext(a) == ".lock":
			continue // dies with the process
		default:
			var text []byte
			if text, err = os.ReadFile(a); err == nil {
				err = os.WriteFile(b, text, 0o600)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// putBack makes a copy the directory to.
func putBack(copied, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	err := os.Rename(copied, to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
