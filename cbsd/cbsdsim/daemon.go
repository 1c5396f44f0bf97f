package cbsdsim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// roleVariable in the environment makes the simulator's binary something else
// than a command: the keeper of a guest, or the guest.
const roleVariable = "CBSDSIM_ROLE"

const (
	roleKeeper = "keeper"
	roleGuest  = "guest"
)

// A birth is what a keeper needs to know; it travels in the environment.
type birth struct {
	Workdir, Jname, Emulator string
	Argv                     []string
	VNC                      bool // a listening socket is the last descriptor handed down
}

const birthVariable = "CBSDSIM_BIRTH"

// spawnGuest starts a VM's process under a keeper of its own session, as
// bhyverun.sh is for bhyve, and returns the VM's process id, 0 if it ended at once.
func (c *call) spawnGuest(g guest, argv []string, vnc net.Listener) (pid int, err error) {
	pidReader, pidWriter, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer pidReader.Close()
	defer pidWriter.Close()
	files := []*os.File{pidWriter}
	if vnc != nil {
		socket, err := vnc.(*net.TCPListener).File()
		if err != nil {
			return 0, err
		}
		defer socket.Close()
		files = append(files, socket)
	}
	b, err := json.Marshal(birth{string(c.wd), g.jname, g.emulator, argv, vnc != nil})
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	keeper := &exec.Cmd{
		Path: self, Args: []string{"cbsdsim: keeper of " + c.wd.system(g.jname)}, Dir: "/",
		// what the real daemons inherit of the environment, these inherit
		Env:         append(slices.Clip(c.env), roleVariable+"="+roleKeeper, birthVariable+"="+string(b)),
		ExtraFiles:  files,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := keeper.Start(); err != nil {
		return 0, err
	}
	if err := keeper.Process.Release(); err != nil {
		return 0, err
	}
	if err := pidWriter.Close(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(pidReader).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("waiting for the keeper: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

func runRole(role string, env []string, stderr io.Writer) int {
	var b birth
	err := json.Unmarshal([]byte(lookupEnv(env, birthVariable)), &b)
	switch {
	case err != nil:
	case role == roleKeeper:
		err = b.keep(env)
	case role == roleGuest:
		err = b.live()
	default:
		err = errors.New("no such role")
	}
	if err != nil {
		fmt.Fprintf(stderr, "cbsdsim: %s: %v\n", role, err)
		return 1
	}
	return 0
}

// keep starts the guest, reports its pid on descriptor 3, waits for its end and
// then clears what a running bhyve VM has, as bhyverun.sh does.
func (b birth) keep(env []string) error {
	wd := workdir(b.Workdir)
	report := os.NewFile(3, "report")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := wd.program(self, b.Emulator)
	if err != nil {
		return err
	}
	guest := &exec.Cmd{
		Path: program, Args: b.Argv, Dir: "/",
		Env: append(slices.Clip(env), roleVariable+"="+roleGuest),
	}
	ready, readyWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	guest.ExtraFiles = []*os.File{readyWriter}
	if b.VNC {
		guest.ExtraFiles = append(guest.ExtraFiles, os.NewFile(4, "vnc"))
	}
	if err := guest.Start(); err != nil {
		return errors.Join(err, writeLine(report, 0))
	}
	readyWriter.Close()
	for _, f := range guest.ExtraFiles[1:] {
		f.Close()
	}
	_, _ = ready.Read(make([]byte, 1)) // it serves, or it has ended
	if b.Emulator == "bhyve" {
		err = os.WriteFile(wd.vmm(b.Jname), nil, 0o600)
	}
	if err := errors.Join(err, writeLine(report, guest.Process.Pid)); err != nil {
		_ = guest.Process.Kill()
	}
	ended := make(chan struct{})
	go b.killWithWorkdir(guest.Process, ended)
	_ = guest.Wait() // however it ended, it has
	close(ended)
	if b.Emulator != "bhyve" || !wd.alive() {
		return nil
	}
	err = with(wd.localDB(), func(d *db) error {
		return d.exec("UPDATE jails SET jid = 0 WHERE jname = ? AND jid = ?", b.Jname, guest.Process.Pid)
	})
	// last: who stops the guest waits for this
	if e := os.Remove(wd.vmm(b.Jname)); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// killWithWorkdir ends a guest whose workdir has disappeared, even one that is
// paused and so cannot notice by itself.
func (b birth) killWithWorkdir(p *os.Process, ended <-chan struct{}) {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ended:
			return
		case <-look.C:
			if !workdir(b.Workdir).alive() {
				_ = p.Kill() // fails if it has ended by itself
			}
		}
	}
}

// program is a link to this binary by the real emulator's name, which is what
// the system then calls the process.
func (w workdir) program(self, emulator string) (string, error) {
	name := "bhyve"
	if emulator == "qemu" {
		name = "qemu-system-x86_64"
	}
	dir := w.path("var", "run", "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	link := filepath.Join(dir, name)
	if target, err := os.Readlink(link); err == nil && target == self {
		return link, nil
	}
	fresh := fmt.Sprintf("%s.%d", link, os.Getpid())
	if err := os.Symlink(self, fresh); err != nil {
		return "", err
	}
	return link, os.Rename(fresh, link)
}

func writeLine(f *os.File, n int) error {
	_, err := fmt.Fprintln(f, n)
	return errors.Join(err, f.Close())
}

// live is the guest: it greets VNC clients until SIGTERM.
func (b birth) live() error {
	wd := workdir(b.Workdir)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if b.VNC {
		l, err := net.FileListener(os.NewFile(4, "vnc"))
		if err != nil {
			return err
		}
		defer l.Close()
		go greet(l)
	}
	if b.Emulator == "qemu" {
		if err := os.WriteFile(wd.qemuPID(b.Jname), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := os.NewFile(3, "ready").Close(); err != nil {
		return err
	}
	<-stop
	if b.Emulator == "qemu" {
		return os.Remove(wd.qemuPID(b.Jname))
	}
	return nil
}

// greet answers each VNC client with the banner and listens until it goes.
func greet(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if _, err := io.WriteString(conn, "RFB 003.008\n"); err == nil {
				_, _ = io.Copy(io.Discard, conn)
			}
		}()
	}
}

// processStopped tells whether a process is suspended.
func processStopped(pid int) bool {
	out, err := exec.Command("/bin/ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(out)), "T")
}
