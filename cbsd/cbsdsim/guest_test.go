package cbsdsim

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// field is one value of a command in quiet mode or of a list without a header.
func field(t *testing.T, dir string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(must(t, dir, args...))
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("not a number: %q", s)
	}
	return n
}

func TestGuestIsAProcess(t *testing.T) {
	for _, f := range []family{bhyve, qemu} {
		t.Run(f.emulator, func(t *testing.T) {
			dir := newPool(t)
			must(t, dir, tiny(f.letter+"create", "vm1", "runasap=1")...)
			list := []string{f.letter + "ls", "header=0", "display=jid"}
			pid := number(t, field(t, dir, list...))
			if !processAlive(pid) {
				t.Fatalf("no process %d", pid)
			}
			command, err := exec.Command("ps", "-o", "command=", "-ww", "-p", strconv.Itoa(pid)).Output()
			if err != nil {
				t.Fatal(err)
			}
			if f == qemu {
				for _, part := range []string{"qemu-system-x86_64 ", " -name vm1 ", " -pidfile " + filepath.Join(dir, "jails-system", "vm1", "qemu.pid")} {
					if !strings.Contains(string(command), part) {
						t.Errorf("no %q in the command line %s", part, command)
					}
				}
				if got := readPID(workdir(dir).qemuPID("vm1")); got != pid {
					t.Errorf("pid file has %d, the list %d", got, pid)
				}
			} else {
				if !strings.HasPrefix(string(command), "bhyve: vm1") {
					t.Errorf("command line is %s", command)
				}
				if _, err := os.Stat(filepath.Join(dir, VMMDir, "vm1")); err != nil {
					t.Error(err)
				}
			}
			if banner := greeting(t, field(t, dir, f.letter+"get", "jname=vm1", "mode=quiet", "vnc_port")); banner != "RFB 003.008\n" {
				t.Errorf("VNC banner is %q", banner)
			}
			must(t, dir, f.letter+"stop", "jname=vm1")
			if processAlive(pid) {
				t.Errorf("process %d lives after the stop", pid)
			}
			if _, err := os.Stat(filepath.Join(dir, VMMDir, "vm1")); err == nil {
				t.Error("a stopped guest is in " + VMMDir)
			}
		})
	}
}

func greeting(t *testing.T, port string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 12)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestKilledGuestIsOff(t *testing.T) {
	for _, f := range []family{bhyve, qemu} {
		t.Run(f.emulator, func(t *testing.T) {
			dir := newPool(t)
			must(t, dir, tiny(f.letter+"create", "vm1", "runasap=1")...)
			list := []string{f.letter + "ls", "header=0", "display=jid,status"}
			pid, _, _ := strings.Cut(field(t, dir, list...), " ")
			if err := syscall.Kill(number(t, pid), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "off", func() bool { return field(t, dir, list...) == "0  Off" })
			must(t, dir, f.letter+"start", "vm1")
		})
	}
}

func TestGuestEndsWithItsWorkdir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pool")
	if err := Init(dir, "node"); err != nil {
		t.Fatal(err)
	}
	must(t, dir, tiny("bcreate", "vm1", "runasap=1")...)
	must(t, dir, tiny("qcreate", "vm2", "runasap=1")...)
	must(t, dir, "bpause", "jname=vm1", "mode=on")
	pids := []int{
		number(t, field(t, dir, "bls", "header=0", "display=jid")),
		number(t, field(t, dir, "qls", "header=0", "display=jid")),
	}
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both ended", func() bool { return !processAlive(pids[0]) && !processAlive(pids[1]) })
}

func TestPausedGuestIsKilledInTheEnd(t *testing.T) {
	dir := newPool(t)
	must(t, dir, tiny("bcreate", "vm1", "runasap=1")...)
	must(t, dir, "bpause", "jname=vm1", "mode=on")
	pid := number(t, field(t, dir, "bls", "header=0", "display=jid"))
	if !processStopped(pid) {
		t.Error("the process of a paused guest is not stopped")
	}
	must(t, dir, "bstop", "jname=vm1", "hard_timeout=1")
	if processAlive(pid) {
		t.Error("a paused guest outlives its stop")
	}
}

func TestParallelCreation(t *testing.T) {
	dir := newPool(t)
	const n = 8
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			out, errs, code := cbsd(dir, tiny("bcreate", fmt.Sprintf("vm%d", i), "runasap=1")...)
			if code != 0 {
				t.Errorf("exit status %d\n%s%s", code, out, errs)
			}
		})
	}
	wg.Wait()
	lines := strings.Fields(must(t, dir, "bls", "header=0", "display=vnc"))
	ports := map[string]bool{}
	for _, l := range lines {
		ports[l] = true
	}
	if len(lines) != n || len(ports) != n {
		t.Errorf("%d guests with %d VNC ports, want %d of each: %v", len(lines), len(ports), n, lines)
	}
}

func TestParallelWrites(t *testing.T) {
	dir := newPool(t)
	must(t, dir, tiny("bcreate", "vm1")...)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if out, errs, code := cbsd(dir, "bset", "jname=vm1", fmt.Sprintf("tags=t%d", i)); out != "tags: changed\n" || code != 0 {
				t.Errorf("exit status %d\n%s%s", code, out, errs)
			}
		})
	}
	wg.Wait()
	if got := field(t, dir, "bget", "jname=vm1", "mode=quiet", "tags"); !strings.HasPrefix(got, "t") {
		t.Errorf("tags are %q", got)
	}
}

func TestVNCPort(t *testing.T) {
	dir := newPool(t)
	must(t, dir, tiny("bcreate", "vm1")...)
	addr := testserver.FreeAddr(t)
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	must(t, dir, "bset", "jname=vm1", "vm_vnc_port="+port)

	// taken by somebody else: bhyve dies of it, bstart does not mind
	if out := must(t, dir, "bstart", "vm1"); !strings.Contains(out, "PID: 0\n") {
		t.Errorf("started on a port that is taken:\n%s", out)
	}
	if got := field(t, dir, "bls", "header=0", "display=jid,status"); got != "0  Off" {
		t.Errorf("guest is %s", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "bstart", "vm1")
	if got := field(t, dir, "bget", "jname=vm1", "mode=quiet", "vnc_port"); got != port {
		t.Errorf("VNC port is %s, want %s", got, port)
	}
	if got := greeting(t, port); got != "RFB 003.008\n" {
		t.Errorf("VNC banner is %q", got)
	}
	must(t, dir, "bstop", "jname=vm1")
	must(t, dir, "bset", "jname=vm1", "vm_vnc_port=1")
	if out := must(t, dir, "bstart", "vm1"); strings.Contains(out, "PID: 0\n") {
		t.Errorf("did not start without VNC:\n%s", out)
	}
}
