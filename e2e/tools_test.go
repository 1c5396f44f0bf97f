package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// patience is how long something is waited for that must happen.
const patience = 30 * time.Second

// guest lets the pool have a VM, without the agent.
func (w *world) guest(names ...string) {
	w.t.Helper()
	for _, name := range names {
		cmd := exec.Command(program(w.t, "cbsd"), "bcreate", "jname="+name, "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m")
		cmd.Env = []string{"workdir=" + w.pool, "NOINTER=1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			w.t.Fatalf("making %s: %v\n%s", name, err, out)
		}
	}
	if err := os.Truncate(w.truth, 0); err != nil {
		w.t.Fatal(err)
	}
}

// slow makes a command take so many seconds.
func (w *world) slow(command string, seconds float64) {
	w.t.Helper()
	w.simulate(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{command: {Delay: seconds}}})
}

// hold has commands begin and do nothing until they are let go.
func (w *world) hold(command string) (letGo func()) {
	w.t.Helper()
	w.held++
	file := filepath.Join(w.dir, fmt.Sprintf("go%d", w.held))
	w.simulate(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{command: {Until: file}}})
	return func() {
		w.t.Helper()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

// The characters between and after what record notes of a call.
const (
	unitEnd = "\x1f"
	callEnd = "\x1e"
)

// record puts a program in cbsd's place that notes how it was called and then
// is cbsd. It is for before the agent.
func (w *world) record() {
	w.t.Helper()
	script := fmt.Sprintf("#!/bin/sh\nline=\"${CBSDMQ_JOB:--}\"\nfor arg; do line=\"$line%s$arg\"; done\nprintf '%%s%s' \"$line\" >>%s\nexec %s \"$@\"\n",
		unitEnd, callEnd, filepath.Join(w.dir, "calls"), program(w.t, "cbsd"))
	name := filepath.Join(w.dir, "cbsd")
	if err := testserver.WriteScript(name, script); err != nil {
		w.t.Fatal(err)
	}
	w.configure(map[string]any{"cbsd": name})
}

// A call is one start of cbsd.
type call struct {
	job  string // printed id, "-" without one
	argv []string
}

// calls are the starts of cbsd so far, but for those that only ask it about
// itself.
func (w *world) calls() (calls []call) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), callEnd), callEnd) {
		f := strings.Split(line, unitEnd)
		c := call{f[0], f[1:]}
		asks := slices.Equal(c.argv, []string{"-c", "version"}) ||
			len(c.argv) == 2 && c.argv[1] == "--args" ||
			len(c.argv) == 3 && slices.Equal(c.argv[1:], []string{"header=0", "display=jname"})
		if line != "" && (c.job != "-" || !asks) {
			calls = append(calls, c)
		}
	}
	return calls
}

// An original is a client like the original one: it puts a body on the tube and
// reads the reply tube that the broker's number names.
type original struct {
	w   *world
	bus *bus.Bus
	to  config.Section
}

func (w *world) original() *original {
	w.t.Helper()
	b, section := w.open()
	return &original{w, b, section}
}

// put returns the broker's number.
func (o *original) put(body string) uint64 {
	o.w.t.Helper()
	ctx, cancel := context.WithTimeout(o.w.t.Context(), patience)
	defer cancel()
	r := o.bus.Put(ctx, bus.Message{Tube: bus.Tube{Name: o.to.Tube}, Body: []byte(body)})[0]
	if r.Err != nil {
		o.w.t.Fatalf("putting %.100q: %v", body, r.Err)
	}
	return r.ID
}

// replies reads n replies of a reply tube.
func (o *original) replies(tube uint64, n int) (rs []cbsdmq.Reply) {
	o.w.t.Helper()
	ctx, cancel := context.WithTimeout(o.w.t.Context(), patience)
	defer cancel()
	in, err := o.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{o.mailbox(tube)}})
	if err != nil {
		o.w.t.Fatal(err)
	}
	defer in.Close()
	for len(rs) < n {
		ds, err := in.Receive(ctx, n-len(rs))
		if err != nil {
			o.w.t.Fatalf("waiting for reply %d of %d in tube %d: %v", len(rs)+1, n, tube, err)
		}
		for _, d := range ds {
			r, err := cbsdmq.ParseReply(d.Body)
			if err != nil || !r.Final() {
				o.w.t.Fatalf("an original client cannot use the reply %.200q: %v", d.Body, err)
			}
			rs = append(rs, r)
		}
		if err := in.Ack(ctx, ds...); err != nil {
			o.w.t.Fatal(err)
		}
	}
	return rs
}

func (o *original) mailbox(tube uint64) bus.Tube {
	return bus.Tube{Name: bus.MailboxName(o.to.ReplyTubePrefix, tube), Kind: bus.Mailbox}
}

// unread is how many replies lie in a reply tube.
func (o *original) unread(tube uint64) int {
	o.w.t.Helper()
	info, err := o.bus.Inspect(o.w.t.Context(), o.mailbox(tube))
	if err != nil {
		o.w.t.Fatal(err)
	}
	return info.Ready
}

func (o *original) run(body string) cbsdmq.Reply {
	o.w.t.Helper()
	return o.replies(o.put(body), 1)[0]
}

// body is a job of an original client. args are key=value.
func body(command string, args ...string) string {
	j := cbsdmq.Job{Command: command}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		j.Args = append(j.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // a mistake in the test
	}
	return string(b)
}

// good shows that the agent goes on: a job works.
func (o *original) good() {
	o.w.t.Helper()
	if r := o.run(body("bls", "header=0")); r.ErrCode != 0 {
		o.w.t.Errorf("a good job ended %d, %s: %s", r.ErrCode, r.State, r.Reason)
	}
}

// wantRefused checks a refusal: it names the field and the way out.
func wantRefused(t *testing.T, r cbsdmq.Reply, reason string) {
	t.Helper()
	switch {
	case r.State != cbsdmq.Refused || r.ErrCode != cbsdmq.ExitRefused:
		t.Errorf("ended %s with %d (%s), not refused", r.State, r.ErrCode, r.Reason)
	case !strings.Contains(r.Reason, reason):
		t.Errorf("the reason %q does not say %q", r.Reason, reason)
	case r.Hint == "":
		t.Errorf("no way out of %q", r.Reason)
	}
}

// An ending is how a client program ended.
type ending struct {
	stdout, stderr string
	status         int
	took           time.Duration
}

// cbsdmq runs a client command.
func (w *world) cbsdmq(args ...string) ending { return w.call("cbsdmq", args...) }

func (w *world) call(name string, args ...string) ending {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(w.t, name), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begun := time.Now()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || ctx.Err() != nil {
		w.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return ending{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), time.Since(begun)}
}

// ends waits for the end of a process and returns its exit status.
func (p *process) ends(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("the process does not end")
		return 0
	}
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

func (p *process) pid() int { return p.cmd.Process.Pid }

// log is what the agents of the world have logged.
func (w *world) log() string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "agent.log"))
	return string(b)
}

// logged waits for a text in the log.
func (w *world) logged(text string) {
	w.t.Helper()
	testserver.Eventually(w.t, patience, func() error {
		if strings.Contains(w.log(), text) {
			return nil
		}
		return fmt.Errorf("nothing in the log says %q", text)
	})
}

// begun waits until n commands have begun in truth.
func (w *world) begun(n int) {
	w.t.Helper()
	testserver.Eventually(w.t, patience, func() error {
		b, _ := os.ReadFile(w.truth)
		if has := strings.Count("\n"+string(b), "\nB "); has < n {
			return fmt.Errorf("%d of %d commands have begun", has, n)
		}
		return nil
	})
}

// accepted waits until the agent has a job.
func (w *world) accepted(id string) {
	w.t.Helper()
	testserver.Eventually(w.t, patience, func() error {
		_, _, err := w.connect().Job(w.t.Context(), id)
		return err
	})
}

// needProc skips a test that looks into /proc where there is none like Linux's.
func needProc(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("processes are measured with Linux's /proc: NOT TESTED on " + runtime.GOOS)
	}
}

// status is a number of /proc/PID/status, in kB or without a unit.
func status(t *testing.T, pid int, key string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); name == key {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, key)
	return 0
}

// forgetPeak begins VmHWM anew.
func forgetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// descriptors is how many files and sockets a process has open.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// cpu is the time that a process has computed so far.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	const perSecond = 100 // USER_HZ
	return time.Duration(user+system) * time.Second / perSecond
}

// waiting counts the jobs in the tubes of a beanstalkd that begin with prefix.
func waiting(t *testing.T, addr, prefix string) (n int) {
	t.Helper()
	ask := func(command, key string) (values []string) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "%s\r\nquit\r\n", command)
		var b bytes.Buffer
		b.ReadFrom(c)
		for line := range strings.Lines(b.String()) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), key); ok {
				values = append(values, value)
			}
		}
		return values
	}
	for _, tube := range ask("list-tubes", "- ") {
		if !strings.HasPrefix(tube, prefix) {
			continue
		}
		for _, value := range ask("stats-tube "+tube, "current-jobs-ready: ") {
			jobs, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			n += jobs
		}
	}
	return n
}
