package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// BootID names the running boot of the machine.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// List returns all processes that the caller may see.
func List() ([]Process, error) {
	pids, err := pids()
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	list := make([]Process, 0, len(pids))
	for _, pid := range pids {
		p, err := read(pid)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing processes: %w", err)
		}
		if fi, err := os.Stat(procFile(pid, "")); err == nil {
			p.UID = int(fi.Sys().(*syscall.Stat_t).Uid)
		}
		if args, err := readFile(pid, "cmdline"); err == nil {
			p.Args = split(args)
		}
		list = append(list, p)
	}
	return list, nil
}

func pids() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	return list, nil
}

func environ(pid int) ([]byte, error) { return readFile(pid, "environ") }

func same(a, b Start) bool { return a == b }

// read returns what /proc/PID/stat says of a process.
func read(pid int) (Process, error) {
	// Not os.ReadFile: a runner does this for each command that it starts.
	fd, err := unix.Open(procFile(pid, "stat"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Process{}, goneError(err)
	}
	defer unix.Close(fd)
	var buf [1024]byte // 52 numbers and a name of 64 bytes
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return Process{}, goneError(err)
	}
	return parseStat(buf[:n])
}

// parseStat reads /proc/PID/stat, see proc_pid_stat(5): pid (name) state ppid
// pgrp session tty_nr ... starttime as field 22. The name may hold anything,
// spaces and parentheses too.
func parseStat(line []byte) (Process, error) {
	head, rest, ok := bytes.Cut(line, []byte(" ("))
	end := bytes.LastIndex(rest, []byte(") "))
	if !ok || end < 0 {
		return Process{}, fmt.Errorf("unexpected stat line %q", line)
	}
	var p Process
	f := bytes.Fields(rest[end+2:]) // f[0] is field 3
	if len(f) < 20 {
		return Process{}, fmt.Errorf("unexpected stat line %q", line)
	}
	p.Zombie = f[0][0] == 'Z' || f[0][0] == 'X'
	var tty int
	for _, v := range []struct {
		text []byte
		to   *int
	}{{head, &p.PID}, {f[1], &p.PPID}, {f[2], &p.PGID}, {f[3], &p.SID}, {f[4], &tty}} {
		n, err := strconv.Atoi(string(v.text))
		if err != nil {
			return Process{}, fmt.Errorf("unexpected stat line %q", line)
		}
		*v.to = n
	}
	start, err := strconv.ParseInt(string(f[19]), 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("unexpected stat line %q", line)
	}
	p.Start = Start(start)
	p.TTY = ttyName(uint32(tty))
	return p, nil
}

// ttyName names the terminal of a tty_nr; the majors are those of the kernel's
// admin-guide/devices.txt.
func ttyName(nr uint32) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case nr == 0:
		return ""
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8+minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

func readFile(pid int, name string) ([]byte, error) {
	b, err := os.ReadFile(procFile(pid, name))
	if err != nil {
		return nil, goneError(err)
	}
	return b, nil
}

// goneError turns what /proc says of a process that is gone, before or after
// its file was opened, into ErrGone.
func goneError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}
