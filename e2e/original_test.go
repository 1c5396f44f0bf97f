package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The tests of this file are the lines of a list: where the original programs
// break. Each of them fails on the original.

// The original runs bare cbsd for a body that it cannot read, and the command
// without its arguments where they have the wrong type.
func TestNotUnderstoodRunsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.record()
	w.agent("")
	o := w.original()
	for _, tt := range []struct{ body, reason string }{
		{`bset jname=vm1 vm_ram=1g`, "not JSON"},
		{`{"Command":"bls"`, "not JSON"},
		{`["bls"]`, "not a JSON object"},
		{`{"Command":["bls"]}`, "Command"},
		{`{"Command":"bremove","CommandArgs":"jname=vm1"}`, "CommandArgs"},
		{`{"Command":"bremove","CommandArgs":["jname=vm1"]}`, "CommandArgs"},
		{`{"Command":"bremove","CommandArgs":{"jname":["vm1"]}}`, "CommandArgs.jname"},
		{`{"Command":"bremove","CommandArgs":{"jname":null}}`, "CommandArgs.jname"},
		{`{"Command":"bremove","CommandArgs":{"jname":{"is":"vm1"}}}`, "CommandArgs.jname"},
		{`{"CommandArgs":{"jname":"vm1"}}`, "Command: missing"},
	} {
		wantRefused(t, o.run(tt.body), tt.reason)
	}
	if ran := w.calls(); len(ran) > 0 {
		t.Errorf("cbsd was called: %q", ran)
	}
	o.good()
}

// The original hands Command, names and values to a shell.
func TestNoShell(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	w.record()
	canary := filepath.Join(w.dir, "canary")
	w.simulate(cbsdsim.Config{Evaluate: true, Canary: canary})
	w.agent("")
	o := w.original()
	touch := "touch " + canary
	for _, inject := range []string{
		"; " + touch, "\"; " + touch + "; \"", "$(" + touch + ")", "`" + touch + "`", "\n" + touch + "\n",
		"' ; " + touch + " ; '", "| " + touch, "& " + touch, "${x:=$(" + touch + ")}", "\\\"; " + touch,
	} {
		wantRefused(t, o.run(body("bls"+inject)), "Command")
		wantRefused(t, o.run(body("bset", "jname=vm1", "vm_ram=1g"+inject)), "CommandArgs.vm_ram")
		wantRefused(t, o.run(body("bset", "jname=vm1"+inject)), "CommandArgs.jname")
		wantRefused(t, o.run(body("bset", "jname=vm1", "vm_ram"+inject+"=1g")), "CommandArgs.")
	}
	if ran := w.calls(); len(ran) > 0 {
		t.Errorf("cbsd was called: %q", ran)
	}
	// What may be in a text reaches cbsd as one argument.
	tags := "a; " + touch + " & (" + touch + ") > x < y"
	if r := o.run(body("bset", "jname=vm1", "tags="+tags)); r.ErrCode != 0 {
		t.Errorf("ended %s: %s", r.State, r.Reason)
	}
	want := []string{"bset", "jname=vm1", "tags=" + tags}
	if ran := w.calls(); len(ran) != 1 || !slices.Equal(ran[0].argv, want) {
		t.Errorf("cbsd was called with %q, want %q", ran, want)
	}
	if _, err := os.Stat(canary); err == nil {
		t.Error("something was evaluated")
	}
}

// The original panics: the agent is gone.
func TestSlashInCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	a := w.agent("")
	o := w.original()
	for _, command := range []string{"/bin/ls", "bls/x", "../bls", "/", "bls/"} {
		wantRefused(t, o.run(body(command)), "Command")
	}
	o.good()
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// The original loses the job: no reply, and cbsd runs on unseen.
func TestAgentKilledWhileCommandRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	w.slow("bset", 1)
	a := w.agent("")
	o := w.original()
	id := o.put(body("bset", "jname=vm1", "tags=adopted"))
	w.begun(1)
	a.kill()
	w.agent("")
	r := o.replies(id, 1)[0]
	if r.State != cbsdmq.Done || r.Outcome != cbsdmq.Changed || !strings.Contains(r.Message, "Progress: 100%") {
		t.Errorf("got %+v", r)
	}
	w.judge(map[string]cbsdmq.Reply{r.ID: r}, false)
}

// The original never reconnects, and writes 29 MB/s of log at 0.8 of a core.
func TestBrokerRestarted(t *testing.T) {
	t.Parallel()
	broker := testserver.Beanstalkd(t)
	w := newWorld(t, beanstalkdAt(broker.Addr))
	w.configure(map[string]any{"backlog": 2}) // the others stay on the broker
	w.guest("vm1")
	w.slow("bset", 0.5)
	a := w.agent("")
	o := w.original()
	var ids []uint64
	for i := range 5 {
		ids = append(ids, o.put(body("bset", "jname=vm1", fmt.Sprintf("tags=n%d", i))))
	}
	w.begun(1)
	logged := strings.Count(w.log(), "\n")
	broker.Kill(t)
	outage(t, a, 3*time.Second)
	broker.Start(t)
	up := time.Now()
	ends := make(map[string]cbsdmq.Reply)
	for _, id := range ids {
		r := o.replies(id, 1)[0]
		ends[r.ID] = r
	}
	w.judge(ends, false)
	// reconnect_timeout is 1 s; a loaded machine takes what it takes beside it.
	if third := w.order("vm1")[2].Begin.Sub(up); third > 15*time.Second {
		t.Errorf("the first job after the restart was begun after %v", third)
	}
	if lines := strings.Count(w.log(), "\n") - logged; lines > len(ids)+4 {
		t.Errorf("%d lines of log for an outage and %d jobs:\n%s", lines, len(ids), w.log())
	}
}

// outage lets some time pass without a broker. The agent must not compute; what it
// was at before may take a part of the time.
func outage(t *testing.T, a *process, d time.Duration) {
	t.Helper()
	needProc(t)
	for n := 1; ; n++ {
		before := cpu(t, a.pid())
		<-time.After(d) // the outage itself
		if a.gone() {
			t.Fatal("the agent is gone")
		}
		used := cpu(t, a.pid()) - before
		if used <= d/5 {
			return
		}
		if n == 4 {
			t.Errorf("the agent computed %v in an outage of %v, and as much before", used, d)
			return
		}
	}
}

func TestBrokerStartedAfterAgent(t *testing.T) {
	t.Parallel()
	broker := testserver.Beanstalkd(t)
	broker.Kill(t)
	w := newWorld(t, beanstalkdAt(broker.Addr))
	a := w.agent("")
	w.logged("serving")
	outage(t, a, 2*time.Second)
	broker.Start(t)
	w.original().good()
	if lines := strings.Count(w.log(), "\n"); lines > 6 {
		t.Errorf("%d lines of log:\n%s", lines, w.log())
	}
}

// order are the commands on a guest in the order in which they began.
func (w *world) order(guest string) (list []judge.Act) {
	w.t.Helper()
	for _, a := range w.history(nil).Acts {
		if slices.Contains(a.Guests, guest) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b judge.Act) int { return a.Begin.Compare(b.Begin) })
	return list
}

// The original leaves replies that nobody reads on the broker for ever.
func TestUnreadRepliesRemoved(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for more than a minute, the shortest reply_ttl: NOT TESTED")
	}
	t.Parallel()
	broker := testserver.Beanstalkd(t)
	w := newWorld(t, beanstalkdAt(broker.Addr))
	w.configure(map[string]any{"reply_ttl": "60s"})
	w.guest("vm1", "vm2")
	letGo := w.hold("bset")
	a := w.agent("")
	ours := w.start("", "run", "--config", w.file, "bset", "jname=vm1", "tags=x")
	theirs := w.original().put(body("bset", "jname=vm2", "tags=y"))
	w.begun(2)
	ours.kill()
	letGo()
	unread := func() int { return waiting(t, broker.Addr, "cbsd_pool1_result_id") }
	testserver.Eventually(t, patience, func() error {
		if n := strings.Count(w.log(), "job ended"); n < 2 || unread() < 2 {
			return fmt.Errorf("%d of 2 jobs have ended, %d replies: to a client that was killed, and to %d", n, unread(), theirs)
		}
		return nil
	})
	a.kill() // replies are looked for a minute after the start of an agent
	w.agent("")
	testserver.Eventually(t, 150*time.Second, func() error {
		if n := unread(); n > 0 {
			return fmt.Errorf("%d replies are still there", n)
		}
		return nil
	})
}

// The original starts more than 165 processes at once, three at a time on one
// guest, and not in their order.
func TestManyJobsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	guests := []string{"vm1", "vm2", "vm3", "vm4", "vm5", "vm6"}
	w.guest(guests...)
	o := w.original()
	var ids []uint64
	for i := range 200 {
		ids = append(ids, o.put(body("bset", "jname="+guests[i%len(guests)], fmt.Sprintf("tags=n%d", i))))
	}
	w.agent("")
	ends := make(map[string]cbsdmq.Reply)
	for _, id := range ids {
		r := o.replies(id, 1)[0]
		ends[r.ID] = r
	}
	w.judge(ends, false)
	var all []judge.Act
	for _, guest := range guests {
		var last int
		for _, s := range w.order(guest) {
			id, err := strconv.Atoi(strings.TrimPrefix(s.Job, "pool1/"))
			if err != nil || id < last {
				t.Errorf("on %s %s came after %d: %v", guest, s.Job, last, err)
			}
			last = id
			all = append(all, s)
		}
	}
	if len(all) != len(ids) {
		t.Errorf("%d commands for %d jobs", len(all), len(ids))
	}
	for _, a := range all {
		together := 0
		for _, b := range all {
			if !b.Begin.After(a.Begin) && a.Begin.Before(b.End) {
				together++
			}
		}
		if together > 4 {
			t.Errorf("%d commands at once with 4 workers", together)
			break
		}
	}
}

// The original's broker client grows without bound, and a reply over the
// broker's limit is lost: its client hangs.
func TestOutputOverTheBrokersLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	const size, seed = 300_000, 7
	w.simulate(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"bls": {OutputBytes: size, Seed: seed, Stdout: "first line\n"}}})
	w.agent("")
	r := w.original().run(body("bls", "header=0"))
	var text strings.Builder
	text.WriteString("first line\n")
	if err := cbsdsim.WriteText(&text, size, seed); err != nil {
		t.Fatal(err)
	}
	whole := text.String()
	end := r.Output()
	if r.State != cbsdmq.Done || len(end) < 32<<10 || !strings.HasSuffix(whole, string(end)) {
		t.Errorf("the reply is %s and has the last %d bytes", r.State, len(end))
	}
	if r.Cut != int64(len(whole)-len(end)) || r.Offset != r.Cut {
		t.Errorf("cut %d, offset %d, with %d of %d bytes", r.Cut, r.Offset, len(end), len(whole))
	}
	out := w.cbsdmq("output", "--config", w.file, r.ID)
	if out.status != 0 || out.stdout != whole {
		t.Errorf("output ends with %d and %d bytes: %s%s", out.status, len(out.stdout), cmp.Diff(whole[:100], out.stdout[:min(100, len(out.stdout))]), out.stderr)
	}
}

// The original writes passwords in clear into its log and into a file for each
// job that all can read.
func TestSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.agent("")
	const secret = "S3cretWord"
	o := w.original()
	args := []string{"jname=vm1", "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "ci_user_pw_root=" + secret}
	r := o.run(body("bcreate", args...))
	if r.ErrCode != 0 {
		t.Errorf("ended %s: %s", r.State, r.Reason)
	}
	bad := []string{
		body("bcreate", append(args, "ci_user_pw_user="+secret+"$(x)")...),
		body("bset", "jname=vm1", "ci_user_pw_root="+secret+"\n"),
		body("bset", "jname=vm1", "ci_usr_pw_root="+secret),
		body("bcreate", args...) + "}",
		strings.TrimSuffix(body("bcreate", args...), "}}"),
		`{"Command":"bset","CommandArgs":{"ci_user_pw_root":["` + secret + `"]}}`,
	}
	for _, b := range bad {
		r := o.run(b)
		if r.State != cbsdmq.Refused || strings.Contains(fmt.Sprintf("%+v", r), secret) {
			t.Errorf("a reply tells: %+v", r)
		}
	}
	list := w.cbsdmq("jobs", "--config", w.file, "-o", "json")
	one := w.cbsdmq("jobs", "--config", w.file, r.ID)
	if !strings.Contains(list.stdout, "ci_user_pw_root=***") || !strings.Contains(one.stdout, "ci_user_pw_root=***") {
		t.Errorf("the argument is not shown as hidden:\n%s%s", list.stdout, one.stdout)
	}
	for name, text := range map[string]string{"jobs": list.stdout + one.stdout, "the log": w.log()} {
		if strings.Contains(text, secret) {
			t.Errorf("%s tells:\n%s", name, text)
		}
	}
	var files int
	for _, dir := range []string{filepath.Join(w.dir, "state"), filepath.Join(w.pool, "var", "db", "cbsdmq"), filepath.Join(w.dir, "agent.log")} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().IsRegular() {
				files++
				if info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s has mode %v", path, info.Mode())
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if files < 4 {
		t.Errorf("only %d files were looked at", files)
	}
}

// The original overwrites what it had kept of the earlier job, and a late reply
// reaches another client.
func TestIDsBeginAgain(t *testing.T) {
	for name, agent := range map[string]struct{ leave, comeBack func(*world, *process) }{
		"agent lives": {
			func(w *world, a *process) { a.signal(syscall.SIGSTOP) },
			func(w *world, a *process) { a.signal(syscall.SIGCONT) },
		},
		"agent is killed": {
			func(w *world, a *process) { a.kill() },
			func(w *world, a *process) { w.agent("") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := testserver.BeanstalkdWithoutBinlog(t)
			w := newWorld(t, beanstalkdAt(broker.Addr))
			w.guest("vm1")
			letGo := w.hold("bset")
			same := body("bls", "header=0", "display=jname")
			two := func(second string) *original {
				o := w.original()
				if id := o.put(same); id != 1 {
					t.Fatalf("the first job has the id %d", id)
				}
				o.put(second)
				return o
			}
			o := two(body("bset", "jname=vm1", "tags=late"))
			a := w.agent("")
			o.replies(1, 1)
			w.begun(1)
			agent.leave(w, a)
			broker.Kill(t)
			broker.Start(t)
			o = two(body("bls", "header=0", "display=status"))
			agent.comeBack(w, a)
			again, stranger := o.replies(1, 1)[0], o.replies(2, 1)[0]
			if again.State != cbsdmq.Done || again.Message != "vm1\n" {
				t.Errorf("a job with the id and the body of another was answered with %+v", again)
			}
			if stranger.State != cbsdmq.Done || stranger.Message != "Off\n" {
				t.Errorf("a job with the id of another was answered with %+v", stranger)
			}
			letGo()
			w.logged(`msg="job ended" pool=pool1 job=pool1/2 command=bset`)
			o.good() // behind the reply that must not be
			if n := o.unread(2); n != 0 {
				t.Errorf("%d replies in the tube of a stranger", n)
			}
		})
	}
}

// A body may say which reply tube it wants. The original's agent overwrites
// with it what it keeps of the other job.
func TestJobIDOfSomebodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	w.agent("")
	o := w.original()
	owner := o.run(body("bls", "header=0", "display=jname"))
	_, number, _ := strings.Cut(owner.ID, "/")
	tube, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	id := o.put(fmt.Sprintf(`{"Command":"bls","CommandArgs":{"header":"0","display":"status"},"JobID":%d}`, tube))
	thief := o.replies(tube, 1)[0]
	if want := cbsdmq.PrintedID("pool1", fmt.Sprint(id)); thief.ID != want || thief.Message == owner.Message {
		t.Errorf("the job %s was answered with %+v", want, thief)
	}
	for _, r := range []cbsdmq.Reply{owner, thief} {
		if out := w.cbsdmq("output", "--config", w.file, r.ID); out.stdout != r.Message {
			t.Errorf("what is kept of %s is %q, it said %q: %s", r.ID, out.stdout, r.Message, out.stderr)
		}
	}
}
