package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/internal/proc"
)

func TestPermissions(t *testing.T) {
	s := newSite(t)
	for name, want := range map[string]os.FileMode{
		".": 0o700 | os.ModeDir, socketName: 0o600 | os.ModeSocket, lockName: 0o600, logName: 0o600, outputName: 0o700 | os.ModeDir,
	} {
		fi, err := os.Lstat(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), want)
		}
	}
	a := s.agent("p1")
	st := s.shell("p1", 1, "exit 0")
	a.run(st)
	e := a.until(st.Key, Exited)
	for _, f := range []File{e.Out, e.Err} {
		if fi, err := os.Stat(f.Path); err != nil || fi.Mode() != 0o600 {
			t.Errorf("output has mode %v, %v", fi.Mode(), err)
		}
	}
}

func TestBadDirectory(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(path("open"), 0o700), os.Chmod(path("open"), 0o770),
		os.Mkdir(path("own"), 0o700), os.Symlink(path("own"), path("link")),
		os.WriteFile(path("file"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]string{
		"run":                            "not an absolute path",
		path("open"):                     "others may write",
		path("link"):                     "not a directory",
		path("file"):                     "not a directory",
		path(strings.Repeat("very", 30)): "more than 103",
	}
	if os.Geteuid() == 0 {
		if err := os.Mkdir(path("foreign"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path("foreign"), 12345, -1); err != nil {
			t.Fatal(err)
		}
		tests[path("foreign")] = "belongs to uid 12345"
	}
	for dir, want := range tests {
		err := Serve(t.Context(), Config{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Serve in %s: %v, want %q", dir, err, want)
		}
		if _, err := Ensure(t.Context(), Config{Dir: dir}, "/bin/false", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Ensure in %s: %v, want %q", dir, err, want)
		}
	}
}

func TestTwoRunners(t *testing.T) {
	s := newSite(t)
	cmd := exec.Command(os.Args[0], s.dir)
	cmd.Env = append(os.Environ(), actAs+"=runner")
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("%v: %s (pid %d)\n", ErrInUse, s.dir, s.cmd.Process.Pid)
	if err == nil || string(out) != want {
		t.Errorf("the second says %q, %v, want %q", out, err, want)
	}
	a := s.agent("p1")
	st := s.shell("p1", 1, "exit 0")
	a.run(st)
	a.until(st.Key, Exited)
}

// A runner that nobody can find ends, but not before its commands.
func TestDirectoryRemoved(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	path, open := gate(t)
	st := s.shell("p1", 1, "exec 3<"+path)
	a.run(st)
	a.until(st.Key, Started)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	n := uint64(1)
	eventually(t, "starts are refused", func() bool {
		n++
		next := s.shell("p1", n, "exit 0")
		a.run(next)
		return a.until(next.Key, Exited, Refused).Kind == Refused
	})
	open()
	a.until(st.Key, Exited)
	if err := s.cmd.Wait(); err == nil || !strings.Contains(s.log(), errEvicted.Error()) {
		t.Errorf("it ended with %v and says:\n%s", err, s.log())
	}
	s.cmd = nil
}

func TestDialNobody(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, err := Dial(t.Context(), Config{Dir: dir}); !errors.Is(err, ErrNoRunner) {
		t.Errorf("without a socket: %v", err)
	}
	s := newSite(t)
	s.kill()
	if _, err := Dial(t.Context(), Config{Dir: s.dir}); !errors.Is(err, ErrNoRunner) {
		t.Errorf("with a dead runner's socket: %v", err)
	}
}

// Two agents at once get one runner, which has nothing of theirs.
func TestEnsure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	t.Cleanup(func() { killRunners(t, dir) })
	t.Setenv(actAs, "runner")
	clients := make([]*Client, 4)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			for {
				c, err := Ensure(ctx, Config{Dir: dir}, os.Args[0], []string{dir})
				if err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "ended: exit status") {
					continue // it was the other's, which takes long to serve: an agent tries again
				}
				if err != nil {
					t.Error(err)
					return
				}
				clients[i] = c
				return
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	pid := clients[0].PID()
	for _, c := range clients {
		if c.RunnerID() != clients[0].RunnerID() || c.Version() != "test" {
			t.Errorf("runners %s and %s", c.RunnerID(), clients[0].RunnerID())
		}
		c.Close()
	}
	list, err := proc.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.PID == pid && (p.SID != pid || p.PGID != pid || p.TTY != "") {
			t.Errorf("it is not detached: %+v", p)
		}
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd != "/" {
		t.Errorf("its working directory is %s", cwd)
	}
	for fd, want := range []string{os.DevNull, filepath.Join(dir, errorsName), filepath.Join(dir, errorsName)} {
		if name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err == nil && name != want {
			t.Errorf("its descriptor %d is %s, not %s", fd, name, want)
		}
	}
}

// killRunners ends all runners of dir, those too that have not got so far as to
// find it in use.
func killRunners(t *testing.T, dir string) {
	eventually(t, "all runners are gone", func() bool {
		list, err := proc.List()
		if err != nil {
			t.Fatal(err)
		}
		left := false
		for _, p := range list {
			if slices.Equal(p.Args, []string{os.Args[0], dir}) {
				syscall.Kill(p.PID, syscall.SIGKILL)
				left = true
			}
		}
		return !left
	})
}

func TestEnsureCannot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, err := Ensure(t.Context(), Config{Dir: dir}, "/no/such/program", nil); err == nil ||
		!strings.Contains(err.Error(), "no such file") {
		t.Errorf("without the program: %v", err)
	}
	if _, err := Ensure(t.Context(), Config{Dir: dir}, "/bin/false", nil); err == nil ||
		!strings.Contains(err.Error(), "/bin/false ended: exit status 1") {
		t.Errorf("with a program that ends: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Ensure(ctx, Config{Dir: dir}, "/bin/sleep", []string{"3"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a program that does not serve: %v", err)
	}
}

// fakeRunner greets one agent with a line, and returns the client's error.
func fakeRunner(t *testing.T, hello string) error {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if nc, err := l.Accept(); err == nil {
			fmt.Fprint(nc, hello)
			bufio.NewReader(nc).ReadString('\n')
			nc.Close()
		}
	}()
	c, err := Dial(t.Context(), Config{Dir: dir})
	if err == nil {
		c.Close()
	}
	return err
}

func TestOtherProtocol(t *testing.T) {
	err := fakeRunner(t, "cbsdmq-runner 999 in a way not known here\n")
	if e, ok := errors.AsType[*ProtocolError](err); !ok || e.Got != "999" || e.Want != fmt.Sprint(Protocol) {
		t.Errorf("a runner of another protocol: %v", err)
	}
	for _, hello := range []string{"HTTP/1.1 400 Bad Request\n", "\n", "", "cbsdmq-runner 1\n", "cbsdmq-runner 1 id boot pid version\n"} {
		if err := fakeRunner(t, hello); err == nil {
			t.Errorf("no error for the greeting %q", hello)
		}
	}
}

// raw connects without a Client and sends data.
func (s *site) raw(data string) net.Conn {
	s.t.Helper()
	nc, err := net.Dial("unix", filepath.Join(s.dir, socketName))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	if _, err := nc.Write([]byte(data)); err != nil && !errors.Is(err, syscall.EPIPE) { // sent away before the end of it
		s.t.Fatal(err)
	}
	return nc
}

// Whoever does not speak the protocol is sent away, and nobody else notices.
func TestStrangers(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	hello := fmt.Sprintf("cbsdmq-agent %d\n", Protocol)
	for _, data := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"cbsdmq-agent 999\n",
		strings.Repeat("x", 1<<17),
		hello + "\x00\x00\x00\x00S",
		hello + "\xff\xff\xff\xffS",
		hello + "\x00\x00\x00\x01?",
		hello + "\x00\x00\x00\x02S\xff",
		hello + "\x00\x00\x00\x06S\xff\xff\xff\xff\x0f",
		hello + "\x00\x00\x00\x02A\x05",
		hello + "\x00\x00\x00\x01L",
		hello + "\x00\x00\x00\x02K\x01",
		hello + "\x00\x00\x00\x02O\x01",
	} {
		nc := s.raw(data)
		nc.SetReadDeadline(time.Now().Add(within))
		var err error
		for buf := make([]byte, 4096); err == nil; {
			_, err = nc.Read(buf)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("not sent away after %.40q", data)
		}
	}
	st := s.shell("p1", 1, "exit 0")
	a.run(st)
	a.until(st.Key, Exited)
}

// An agent that does not read is sent away; the runner does not grow by it and
// serves the others.
func TestAgentThatDoesNotRead(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	before := s.memory(t)
	// Starts that are refused at once, each with an answer.
	frame := beginFrame(nil, frameStart)
	frame = append(frame, 100)
	for range 100 {
		frame = appendStart(frame, &Start{Key: Key{Pool: "p1"}, Job: strings.Repeat("j", 1000), Path: "/bin/true"})
	}
	frame = endFrame(frame, 0)
	nc := s.raw(fmt.Sprintf("cbsdmq-agent %d\n", Protocol))
	nc.SetWriteDeadline(time.Now().Add(within))
	var err error
	for n := 0; err == nil; n++ {
		if n > 1000 {
			t.Fatal("not sent away after 100 MB of answers")
		}
		_, err = nc.Write(frame)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the runner waits for an agent that does not read")
	}
	st := s.shell("p1", 1, "exit 0")
	a.run(st)
	a.until(st.Key, Exited)
	if grown := s.memory(t) - before; grown > 16*maxUnsent {
		t.Errorf("the runner has grown by %d bytes", grown)
	}
}

// The pool's events go to the agent that asked for it last. The one before is
// told so by the end of its connection, and can ask again.
func TestOwner(t *testing.T) {
	s := newSite(t)
	first := s.agent("p1")
	path, _ := gate(t)
	running := s.shell("p1", 1, "exec 3<"+path)
	first.run(running)
	first.until(running.Key, Started)
	second := s.agent("p1")
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if e, err := first.Next(ctx); !errors.Is(err, io.EOF) {
		t.Errorf("the first got %v, %v", e, err)
	}
	st := s.shell("p1", 2, "exit 0")
	second.run(st)
	second.until(st.Key, Exited)
	third := s.agent("p1")
	if n := len(third.list("p1").Runs); n != 2 { // it has the pool already
		t.Errorf("%d runs are known", n)
	}
	st = s.shell("p1", 3, "exit 0")
	third.run(st)
	third.until(st.Key, Exited)
}

// What an agent sent before another took its pool over may be read after that: the
// other was told that it never arrived, and goes by it.
func TestSentBefore(t *testing.T) {
	s, err := newServer(Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	take := func() *conn {
		nc, agent := net.Pipe()
		t.Cleanup(func() { agent.Close() })
		c := &conn{server: s, nc: nc, more: make(chan struct{}, 1)}
		c.writing = true // nobody is told
		s.list(c, 1, "p1")
		return c
	}
	before, after := take(), take()
	if !before.dead || after.dead {
		t.Errorf("the connection before has ended: %t, the other: %t", before.dead, after.dead)
	}
	p := s.pool("p1")
	start := Start{Key: Key{Pool: "p1", Epoch: 1, N: 1}, Job: "late", Path: "/bin/true"}
	s.accept(before, []Start{start})
	if len(p.runs) != 0 || p.mark.N != 0 {
		t.Errorf("a start of before was accepted: mark %v", p.mark)
	}
	// Nor does it say for the other that it knows what was refused.
	p.refuse(after, &start, "no room")
	s.acknowledge(before, []Key{start.Key})
	if len(p.refused) != 1 {
		t.Error("what was refused to one was acknowledged by another")
	}
	s.acknowledge(after, []Key{start.Key})
	s.accept(after, []Start{start})
	if len(p.refused) != 0 || p.runs[start.Key] == nil {
		t.Errorf("the owner's start was not accepted: %v", p)
	}
}

func TestClosedClient(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	waiting := make(chan error)
	go func() {
		_, err := a.Next(context.Background())
		waiting <- err
	}()
	a.Close()
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("Next that waits: %v", err)
	}
	_, listErr := a.List(t.Context(), "p1")
	_, nextErr := a.Next(t.Context())
	for _, err := range []error{listErr, nextErr, a.Start(), a.Ack(), a.Kill(t.Context(), Key{}, 0)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}

	b := s.agent("p1")
	s.kill()
	if _, err := b.Next(t.Context()); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("after the runner's death: %v", err)
	}
	if _, err := b.List(t.Context(), "p1"); err == nil {
		t.Error("List works after the runner's death")
	}
}

func TestNextEndsWithContext(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
}
