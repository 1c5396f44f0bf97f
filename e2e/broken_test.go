package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The tests of this file break what an agent or a client stands on.

func TestMissingCBSD(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	cbsd := filepath.Join(w.dir, "later", "cbsd")
	w.configure(map[string]any{"cbsd": cbsd})
	a := w.agent("")
	o := w.original()
	for _, command := range []string{body("bls"), body("bset", "jname=vm1", "tags=x")} {
		r := o.run(command)
		if r.State != cbsdmq.Failed || r.ErrCode != cbsdmq.ExitNotFound || !strings.Contains(r.Reason, cbsd) || !strings.Contains(r.Hint, `"cbsd"`) {
			t.Errorf("got %+v", r)
		}
	}
	run := w.cbsdmq("run", "--config", w.file, "bls")
	if run.status != 127 || !strings.Contains(run.stderr, cbsd) || !strings.Contains(run.stderr, "hint: ") {
		t.Errorf("run ends with %d and says %q", run.status, run.stderr)
	}
	if err := os.Mkdir(filepath.Dir(cbsd), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program(t, "cbsd"), cbsd); err != nil {
		t.Fatal(err)
	}
	o.good()
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// TestBrokenWorkdir starts agents on workdirs that are none.
func TestBrokenWorkdir(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		breaks func(pool string) error
		says   string
	}{
		"missing":      {os.RemoveAll, "no such file or directory"},
		"a file":       {func(pool string) error { return os.WriteFile(pool+".x", nil, 0o600) }, "is not a directory"},
		"no inventory": {func(pool string) error { return os.Remove(filepath.Join(pool, "nc.inventory")) }, "has no nc.inventory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, beanstalkd(t))
			if err := tt.breaks(w.pool); err != nil {
				t.Fatal(err)
			}
			if name == "a file" {
				w.configure(map[string]any{"cbsdenv": w.pool + ".x", "pool": "pool1"})
			}
			a := w.agent("")
			status := a.ends(t)
			said := a.stderr.String()
			if status != 1 || !strings.Contains(said, "cbsdenv: ") || !strings.Contains(said, tt.says) || !strings.Contains(said, "hint: ") {
				t.Errorf("the agent ends with %d and says %q", status, said)
			}
			if _, err := os.Stat(filepath.Join(w.pool, "var", "db", "cbsdmq")); err == nil {
				t.Error("it left a journal")
			}
		})
	}
}

// TestWorkdirGoes takes the workdir away from a running agent, as when a pool is
// exported, and damages what it says about guests.
func TestWorkdirGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	a := w.agent("")
	o := w.original()
	o.good()
	away := w.pool + ".away"
	inventory := filepath.Join(w.pool, "var", "db", "local.sqlite")
	for name, tt := range map[string][2]func() error{
		"workdir": {
			func() error { return os.Rename(w.pool, away) },
			func() error { return os.Rename(away, w.pool) },
		},
		"inventory": {
			func() error { return damage(inventory) },
			func() error { return os.Rename(inventory+".good", inventory) },
		},
	} {
		if err := tt[0](); err != nil {
			t.Fatal(err)
		}
		r := o.run(body("bset", "jname=vm1", "tags="+name))
		if r.State == cbsdmq.Done || r.ErrCode == 0 || r.Reason == "" {
			t.Errorf("without its %s: %+v", name, r)
		}
		if err := tt[1](); err != nil {
			t.Fatal(err)
		}
		if r := o.run(body("bset", "jname=vm1", "tags="+name)); r.State != cbsdmq.Done || r.Outcome != cbsdmq.Changed {
			t.Errorf("with its %s again: %+v", name, r)
		}
	}
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// damage puts something else in the place of a file, and keeps the file beside it.
func damage(name string) error {
	if err := os.Rename(name, name+".good"); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(strings.Repeat("this is no database\n", 500)), 0o600)
}

// A fake is a broker that is none.
type fake struct {
	ln    net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

// newFake listens at addr and says text on each connection, and again for
// whatever it hears.
func newFake(t *testing.T, addr, text string) *fake {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{ln: ln}
	t.Cleanup(f.close)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			go func() {
				buf := make([]byte, 4096)
				for err := error(nil); err == nil; _, err = c.Read(buf) {
					if _, err := c.Write([]byte(text)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return f
}

func (f *fake) close() {
	f.ln.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

// TestBadBroker has a broker that refuses, that accepts and says nothing, and
// that is something else. Clients say so in time; an agent stays, quietly, and
// serves when there is a broker.
func TestBadBroker(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		listens bool
		says    string
	}{
		"refuses":       {false, ""},
		"is silent":     {true, ""},
		"is of another": {true, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"},
		"is noise":      {true, strings.Repeat("\x00\xff\x17\r\n", 2000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := testserver.Beanstalkd(t)
			broker.Kill(t)
			close := func() {}
			if tt.listens {
				close = newFake(t, broker.Addr, tt.says).close
			}
			w := newWorld(t, beanstalkdAt(broker.Addr))
			a := w.agent("")
			w.logged("serving")
			for _, c := range [][]string{
				{"cbsdmq", "run", "--config", w.file, "--timeout", "2s", "bls"},
				{"cbsdmq", "submit", "--config", w.file, "--timeout", "2s", "bls"},
				{"cbsdmq", "guests", "--config", w.file, "--timeout", "2s"},
				{"bs_router-client", "-config", w.file, "-body", body("bls"), "-timeout", "2s"},
			} {
				end := w.call(c[0], c[1:]...)
				want := cbsdmq.ExitUnreachable
				if c[1] == "submit" { // later
					want = cbsdmq.ExitGaveUp
				}
				if end.status != want || end.took > 8*time.Second ||
					!strings.Contains(end.stderr, broker.Addr) || !strings.Contains(end.stderr, "hint: ") {
					t.Errorf("%s %s ends with %d after %v and says %q", c[0], c[1], end.status, end.took, end.stderr)
				}
			}
			outage(t, a, time.Second)
			if lines := strings.Count(w.log(), "\n"); lines > 8 {
				t.Errorf("%d lines of log:\n%s", lines, w.log())
			}
			close()
			broker.Start(t)
			w.original().good()
		})
	}
}

// TestBrokerFrozen has a broker that hangs for longer than any timeout while
// jobs are on their way, and goes on.
func TestBrokerFrozen(t *testing.T) {
	t.Parallel()
	broker := testserver.Beanstalkd(t)
	w := newWorld(t, beanstalkdAt(broker.Addr))
	w.guest("vm1")
	w.slow("bset", 0.3)
	a := w.agent("")
	var ids []string
	for _, tag := range []string{"a", "b", "c", "d"} {
		ids = append(ids, w.submit(job("bset", "jname=vm1", "tags="+tag)))
	}
	w.begun(1)
	broker.Stop(t)
	outage(t, a, 5*time.Second)
	broker.Cont(t)
	w.judge(w.ends(ids), false)
}

// TestBadNATS is TestBadBroker for clients of NATS.
func TestBadNATS(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{"is silent": "", "is noise": strings.Repeat("\x00\xff\x17\r\n", 2000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := testserver.FreeAddr(t)
			newFake(t, addr, says)
			w := newWorld(t, map[string]any{"broker": "nats", "nats": map[string]any{"uri": "nats://" + addr, "reconnect_timeout": 1}})
			end := w.cbsdmq("run", "--config", w.file, "--timeout", "2s", "bls")
			if end.status != cbsdmq.ExitUnreachable || end.took > 8*time.Second ||
				!strings.Contains(end.stderr, addr) || !strings.Contains(end.stderr, "hint: ") {
				t.Errorf("ends with %d after %v and says %q", end.status, end.took, end.stderr)
			}
		})
	}
}

// TestBrokenConfiguration has the agent, a client and the originals read files
// with mistakes: each names line, column and key.
func TestBrokenConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	good, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(string(good), "}")
	for name, tt := range map[string]struct{ text, says string }{
		"not JSON":       {"{\n  \"cbsdenv\": \"/pool1\"\n  \"broker\": \"beanstalkd\"\n}", ":3:3: not JSON"},
		"half of it":     {string(good[:len(good)/2]), "not JSON"},
		"empty":          {"", "not JSON"},
		"a list":         {"[]", ":1:1: not a JSON object"},
		"wrong type":     {text + ",\n \"workers\": \"many\"}", ":2:13: workers"},
		"out of range":   {text + ",\n \"readers\": 0, \"backlog\": -1}", ":2:16: backlog"},
		"unknown broker": {strings.Replace(string(good), `"broker":"beanstalkd"`, `"broker":"rabbit"`, 1), "broker: \"rabbit\""},
		"no section":     {strings.Replace(string(good), `"broker":"beanstalkd"`, `"broker":"nats"`, 1), `broker: there is no section "nats"`},
		"bad address":    {text + ",\n \"broker\": \"beanstalkd-b\", \"beanstalkd-b\": {\"uri\": \"http://x\"}}", "uri"},
		"a relative dir": {text + ",\n \"cbsdenv\": \"pool1\"}", "cbsdenv: not an absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pool1.json")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				status int
				words  []string
			}{
				{1, []string{"cbsdmq", "agent", "--config", file}},
				{1, []string{"bs_router", "-config", file}},
				{cbsdmq.ExitBadConfig, []string{"cbsdmq", "run", "--config", file, "bls"}},
				{cbsdmq.ExitBadConfig, []string{"cbsdmq", "check", "--config", file}},
				{cbsdmq.ExitBadConfig, []string{"bs_router-client", "-config", file, "-body", body("bls")}},
			} {
				end := w.call(c.words[0], c.words[1:]...)
				all := end.stdout + end.stderr
				if end.status != c.status || !strings.Contains(all, tt.says) || !strings.Contains(all, "pool1.json") {
					t.Errorf("%s ends with %d, want %d with %q: %s", c.words[:2], end.status, c.status, tt.says, all)
				}
			}
		})
	}
}
