package proc

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Layout of struct kinfo_proc of FreeBSD 12 and later on 64-bit machines
// (sys/sys/user.h; its size and offsets are part of the ABI and the same on
// amd64 and arm64, see KINFO_PROC_SIZE in sys/<arch>/include/proc.h).
const (
	kinfoSize      = 1088
	kinfoPID       = 72
	kinfoPPID      = 76
	kinfoPGID      = 80
	kinfoSID       = 88
	kinfoUID       = 168
	kinfoStartSec  = 336 // struct timeval ki_start
	kinfoStartUsec = 344
	kinfoStat      = 388
	kinfoTTY       = 560 // uint64 ki_tdev, all ones without a terminal

	statZombie = 5 // SZOMB of sys/sys/proc.h
)

// BootID names the running boot of the machine: kern.boot_id, 16 random bytes
// (FreeBSD 13 and later, sys/kern/kern_mib.c).
func BootID() (string, error) {
	b, err := unix.SysctlRaw("kern.boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: sysctl kern.boot_id: %w", err)
	}
	if len(b) == 0 {
		return "", errors.New("boot id: sysctl kern.boot_id is empty")
	}
	return hex.EncodeToString(b), nil
}

// List returns all processes that the caller may see.
func List() ([]Process, error) {
	table, err := table()
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	boot, err := bootTime()
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var ttys map[uint64]string
	list := make([]Process, 0, len(table)/kinfoSize)
	for ; len(table) >= kinfoSize; table = table[kinfoSize:] {
		p, tty := parseKinfo(table[:kinfoSize], boot)
		if tty != noTTY {
			if ttys == nil {
				ttys = ttyNames()
			}
			p.TTY = ttys[tty]
			if p.TTY == "" {
				p.TTY = fmt.Sprintf("%#x", tty)
			}
		}
		if args, err := unix.SysctlRaw("kern.proc.args", p.PID); err == nil && !p.Zombie {
			p.Args = split(args)
		}
		list = append(list, p)
	}
	return list, nil
}

func pids() ([]int, error) {
	table, err := table()
	if err != nil {
		return nil, err
	}
	var list []int
	for ; len(table) >= kinfoSize; table = table[kinfoSize:] {
		p, _ := parseKinfo(table[:kinfoSize], 0)
		list = append(list, p.PID)
	}
	return list, nil
}

// table returns the kinfo_proc of all processes, one after the other.
func table() ([]byte, error) {
	for try := 0; ; try++ {
		b, err := unix.SysctlRaw("kern.proc.proc")
		// The table may grow between the question for its size and the reading.
		if errors.Is(err, unix.ENOMEM) && try < 10 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sysctl kern.proc.proc: %w", err)
		}
		return b, checkKinfo(b)
	}
}

func environ(pid int) ([]byte, error) {
	b, err := unix.SysctlRaw("kern.proc.env", pid)
	if err != nil {
		return nil, goneError("kern.proc.env", err)
	}
	return b, nil
}

// same allows for a second: the clock that ki_start is told in can be stepped
// between the reading of it and that of kern.boottime.
func same(a, b Start) bool {
	d := a - b
	return -1e6 <= d && d <= 1e6
}

// read returns what the kernel says of a process; of a zombie too, as
// kern.proc.pid looks with pget(9), which finds them.
func read(pid int) (Process, error) {
	b, err := unix.SysctlRaw("kern.proc.pid", pid)
	if err != nil {
		return Process{}, goneError("kern.proc.pid", err)
	}
	if len(b) == 0 {
		return Process{}, ErrGone
	}
	if err := checkKinfo(b); err != nil {
		return Process{}, err
	}
	boot, err := bootTime()
	if err != nil {
		return Process{}, err
	}
	p, _ := parseKinfo(b, boot)
	return p, nil
}

const noTTY = ^uint64(0)

// checkKinfo refuses a table of another layout: ki_structsize, the first field,
// says how large the kernel's struct is.
func checkKinfo(b []byte) error {
	if len(b) < kinfoSize || len(b)%kinfoSize != 0 || binary.LittleEndian.Uint32(b) != kinfoSize {
		return errors.New("struct kinfo_proc has a size that is not known here")
	}
	return nil
}

func parseKinfo(b []byte, boot int64) (p Process, tty uint64) {
	num := func(at int) int { return int(int32(binary.LittleEndian.Uint32(b[at:]))) }
	start := int64(binary.LittleEndian.Uint64(b[kinfoStartSec:]))*1e6 +
		int64(binary.LittleEndian.Uint64(b[kinfoStartUsec:]))
	return Process{
		PID:    num(kinfoPID),
		PPID:   num(kinfoPPID),
		PGID:   num(kinfoPGID),
		SID:    num(kinfoSID),
		UID:    num(kinfoUID),
		Start:  Start(start - boot),
		Zombie: b[kinfoStat] == statZombie,
	}, binary.LittleEndian.Uint64(b[kinfoTTY:])
}

// bootTime returns when the machine was booted, in microseconds since 1970. It
// moves when the clock is set, and ki_start with it.
func bootTime() (int64, error) {
	tv, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return 0, fmt.Errorf("sysctl kern.boottime: %w", err)
	}
	return tv.Nano() / 1000, nil
}

// ttyNames maps the device numbers of terminals to their names below /dev.
func ttyNames() map[uint64]string {
	names := make(map[uint64]string)
	for _, pattern := range []string{"/dev/pts/*", "/dev/tty*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, path := range paths {
			if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeCharDevice != 0 {
				names[uint64(fi.Sys().(*syscall.Stat_t).Rdev)] = path[len("/dev/"):]
			}
		}
	}
	return names
}

func goneError(name string, err error) error {
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return fmt.Errorf("sysctl %s: %w", name, err)
}
