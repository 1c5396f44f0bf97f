package cbsd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
)

// A transfer moves one guest from one environment of this host to another. Where
// it is, is read from what is there, so it goes on after a crash at any point:
//
//	here          there           next
//	registered    nothing         unregister it
//	unregistered  nothing, parts  copy its files under other names, compare, rename
//	unregistered  files           register it there
//	unregistered  registered      compare again, remove what is here
//	files         registered      the same
//
// Where both environments are on ZFS its data are datasets, which are sent
// instead.
//
// The file of the transfer says that all of this is its doing. Until the guest
// is proven there, everything is kept here.
type transfer struct {
	guest     string
	from, to  *Pool
	out       io.Writer
	staging   string // below the other environment's jails-data
	stateFile string
	lock      *os.File

	source, target string // datasets of the guest; "" where its data are not on ZFS
}

const (
	transferWait  = 10 * time.Minute // for the other side to come
	transferPoll  = 200 * time.Millisecond
	transferFloor = 1 << 30 // room that is left in the other environment
	undoTime      = 20 * time.Second
	commandTime   = 2 * time.Minute // for junregister and jregister
	lockTries     = 20              // the other side looks for a moment whether it is taken
)

func newTransfer(guest, from, to, command string, out io.Writer) *transfer {
	t := &transfer{guest: guest, out: out}
	t.from = &Pool{cfg: Config{Workdir: from, CBSD: command}, store: newStore(), scan: new(scanner)}
	t.to = &Pool{cfg: Config{Workdir: to, CBSD: command}, store: newStore(), scan: new(scanner)}
	t.staging = t.to.path("jails-data", ".cbsdmq-"+guest)
	t.stateFile = t.from.transferFile(guest, "json")
	return t
}

func (t *transfer) close() { _ = errors.Join(t.from.Close(), t.to.Close()) } // they were only read

// run moves the guest. ctx ends it: then all is put back, unless the guest is
// proven on the other side.
func (t *transfer) run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(t.stateFile), 0o700); err != nil {
		return err
	}
	lock := t.from.transferFile(t.guest, "lock")
	var err error
	if t.lock, err = takeLockFile(ctx, lock); err != nil {
		return fmt.Errorf("another transfer of %s runs: %w", t.guest, err)
	}
	defer t.lock.Close()
	if now := time.Now(); os.Chtimes(lock, now, now) != nil {
		t.say("the other side may not see that this began") // it looks at the time
	}
	rec, resume, err := t.record()
	if err != nil {
		return err
	}
	if err := t.locate(ctx); err != nil {
		return err
	}
	if done, err := t.check(ctx, rec, resume); err != nil || done {
		return err
	}
	if err := t.held(ctx); err != nil {
		return err
	}
	if !resume {
		if err := t.write(rec); err != nil {
			return err
		}
	}
	if !rec.Proven {
		if err := t.move(ctx); err != nil {
			return t.undo(err)
		}
		rec.Proven = true
		if err := t.write(rec); err != nil {
			return fmt.Errorf("%s is in %s, but is still here, too: %w", t.guest, t.to.cfg.Workdir, err)
		}
	}
	t.say("removing it from %s", t.from.cfg.Workdir)
	if err := t.removeSource(ctx); err != nil {
		return fmt.Errorf("%s is in %s, but not all of it is gone here: %w", t.guest, t.to.cfg.Workdir, err)
	}
	return os.Remove(t.stateFile)
}

func (t *transfer) say(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

// move brings the guest to the other side and proves it there.
func (t *transfer) move(ctx context.Context) error {
	for _, step := range []func(context.Context) error{t.unregister, t.copy, t.register, t.prove} {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// check refuses what must not be moved, before anything is touched. done: it was
// moved before.
func (t *transfer) check(ctx context.Context, rec transferRecord, resume bool) (done bool, err error) {
	here, err := t.from.state(ctx, t.guest, Other, nil)
	if err != nil {
		return false, err
	}
	there, err := t.to.state(ctx, t.guest, Other, nil)
	if err != nil {
		return false, err
	}
	switch {
	case resume && rec.Proven, resume && !here.Exists && (here.Unregistered || there.Exists):
		t.say("going on with the transfer of %s", rec.Begun.Format(time.DateTime))
		return false, nil
	case !here.Exists && !here.Unregistered && there.Exists && !resume:
		t.say("%s is in %s already", t.guest, t.to.cfg.Workdir)
		return true, nil
	case here.Exists && there.Exists:
		return false, fmt.Errorf("%s is a guest of both %s and %s", t.guest, t.from.cfg.Workdir, t.to.cfg.Workdir)
	case !here.Exists && here.Unregistered:
		return false, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is unregistered here, and not by a transfer", t.guest).
			WithHint("register it first: cbsd jregister jname=%s", t.guest)
	case !here.Exists:
		return false, fmt.Errorf("there is no guest %s in %s", t.guest, t.from.cfg.Workdir)
	case here.Running:
		return false, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s runs", t.guest).WithHint("stop it first")
	}
	if !resume {
		for _, part := range t.parts() {
			// CBSD leaves a directory jails-fstab/GUEST behind when it removes a guest.
			if lexists(t.to.path(part)) && !strings.HasPrefix(part, "jails-fstab") {
				return false, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is there already", t.to.path(part)).
					WithHint("it belongs to no guest of %s: look at it, and move it away", t.to.cfg.Workdir)
			}
		}
	}
	if t.source != "" {
		return false, t.checkDatasets(ctx, resume)
	}
	need := int64(0)
	for _, part := range t.parts() {
		need += taken(t.from.path(part))
	}
	free, _, err := room(t.to.path("jails-data"))
	if err != nil {
		return false, err
	}
	return false, t.checkRoom(need, free)
}

func (t *transfer) checkRoom(need, free int64) error {
	if free-need < transferFloor && need > 0 {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s takes %d MB, and %s has %d MB free: too few would be left", t.guest, need>>20, t.to.cfg.Workdir, free>>20).
			WithHint("make room there")
	}
	return nil
}

// parts are the files of a guest, below an environment.
func (t *transfer) parts() []string {
	return []string{
		filepath.Join("jails-data", t.guest+"-data"), filepath.Join("jails-system", t.guest),
		filepath.Join("jails-fstab", t.guest), filepath.Join("jails-rcconf", "rc.conf_"+t.guest),
	}
}

func (t *transfer) unregister(ctx context.Context) error {
	here, err := t.from.state(ctx, t.guest, Other, nil)
	if err != nil || !here.Exists {
		return err
	}
	if err := t.dropStale(ctx); err != nil {
		return err
	}
	t.say("unregistering %s in %s", t.guest, t.from.cfg.Workdir)
	out := t.from.cbsd(ctx, "junregister", "jname="+t.guest)
	if here, err = t.from.state(ctx, t.guest, Other, nil); err != nil {
		return err
	}
	if here.Exists || !here.Unregistered {
		return fmt.Errorf("%s was not unregistered: %s", t.guest, out)
	}
	return nil
}

// copy brings the files over, each part under another name until it was
// compared. The description comes last.
func (t *transfer) copy(ctx context.Context) error {
	there, err := t.to.state(ctx, t.guest, Other, nil)
	if err != nil || there.Exists {
		return err
	}
	if t.source != "" {
		if err := t.send(ctx); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(t.staging); err != nil {
		return err
	}
	for _, part := range t.parts() {
		source, target := t.from.path(part), t.to.path(part)
		if !lexists(source) {
			continue
		}
		if done, err := t.sent(source, target); err != nil {
			return err
		} else if done {
			continue
		}
		t.say("copying %s", source)
		staged := filepath.Join(t.staging, part)
		if err := os.MkdirAll(filepath.Dir(staged), 0o700); err != nil {
			return err
		}
		if err := copyTree(ctx, source, filepath.Dir(staged), t.lock); err != nil {
			return err
		}
		if err := sameTree(ctx, source, staged); err != nil {
			return fmt.Errorf("the copy is not what was copied: %w", err)
		}
		unix.Sync()
		if err := os.RemoveAll(target); err != nil { // of an earlier attempt
			return err
		}
		if err := os.Rename(staged, target); err != nil {
			return err
		}
	}
	return os.RemoveAll(t.staging)
}

func (t *transfer) register(ctx context.Context) error {
	there, err := t.to.state(ctx, t.guest, Other, nil)
	if err != nil || there.Exists {
		return err
	}
	t.say("registering %s in %s", t.guest, t.to.cfg.Workdir)
	out := t.to.cbsd(ctx, "jregister", "jname="+t.guest)
	if there, err = t.to.state(ctx, t.guest, Other, nil); err != nil {
		return err
	}
	if !there.Exists {
		return fmt.Errorf("%s was not registered in %s: %s", t.guest, t.to.cfg.Workdir, out)
	}
	return nil
}

// prove looks whether the guest is whole on the other side.
func (t *transfer) prove(ctx context.Context) error {
	there, err := t.to.state(ctx, t.guest, Clone, nil)
	switch {
	case err != nil:
		return err
	case !there.Exists:
		return fmt.Errorf("%s is not in %s", t.guest, t.to.cfg.Workdir)
	case t.source == "" && there.Data != t.to.path("jails-data", t.guest+"-data"):
		return fmt.Errorf("%s looks for its data in %s", t.guest, there.Data)
	}
	for disk := range there.Disks {
		if filepath.IsAbs(disk) {
			return fmt.Errorf("its disk %s lies outside of the environment", disk)
		}
	}
	t.say("comparing its data")
	if t.source != "" {
		return t.proveDatasets(ctx, there.Data)
	}
	return sameTree(ctx, t.from.path("jails-data", t.guest+"-data"), there.Data)
}

// removeSource removes the guest here; its description last, so that it can be
// seen until then.
func (t *transfer) removeSource(ctx context.Context) error {
	if t.source != "" {
		if err := t.removeDatasets(ctx); err != nil {
			return err
		}
	}
	for _, part := range t.parts() {
		path := t.from.path(part)
		if to, err := os.Readlink(path); err == nil && t.source != "" {
			_ = unix.Rmdir(to) // where the file system was mounted
		}
		if os.RemoveAll(path) == nil {
			continue
		}
		unprotect(path)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// undo puts the guest back where it was, after why.
func (t *transfer) undo(why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	there, err := t.to.state(ctx, t.guest, Other, nil)
	if err == nil && there.Exists {
		// Not proven, but in the tables there: the way back is the way out.
		t.to.cbsd(ctx, "junregister", "jname="+t.guest)
		if there, err = t.to.state(ctx, t.guest, Other, nil); err == nil && there.Exists {
			err = fmt.Errorf("%s stays registered in %s", t.guest, t.to.cfg.Workdir)
		}
	}
	var left error
	if err == nil {
		if left = t.undoDatasets(ctx); left == nil {
			left = os.RemoveAll(t.staging)
		}
		for _, part := range t.parts() {
			if left == nil && lexists(t.from.path(part)) && lexists(t.to.path(part)) { // a copy of what is here
				left = os.RemoveAll(t.to.path(part))
			}
		}
	}
	here, stateErr := t.from.state(ctx, t.guest, Other, nil)
	if stateErr == nil && !here.Exists {
		t.from.cbsd(ctx, "jregister", "jname="+t.guest)
		here, stateErr = t.from.state(ctx, t.guest, Other, nil)
	}
	if err = errors.Join(err, stateErr); err == nil && here.Exists {
		t.say("%s is in %s again, as before", t.guest, t.from.cfg.Workdir)
		if left != nil {
			return fmt.Errorf("%w; not all of its copy could be removed: %w", why, left)
		}
		return errors.Join(why, os.Remove(t.stateFile))
	}
	return cbsdmq.Errorf(cbsdmq.CodeInternal, "", "%w; it could not be put back: %w", why, err).
		WithHint("its data are whole in %s: transfer it again, which goes on, or: cbsd jregister jname=%s", t.from.cfg.Workdir, t.guest)
}

// cbsd runs a command of cbsd in the pool and returns its last line.
func (p *Pool) cbsd(ctx context.Context, argv ...string) string {
	// One that is cut short leaves a guest that is neither here nor there.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.cfg.CBSD, argv...)
	cmd.Env, cmd.Dir = p.environ(), "/var/empty"
	if !exists(cmd.Dir) {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // SIGTERM for the job is not for it
	out, err := cmd.CombinedOutput()
	if line := lastLine(out, noise); line != "" || err == nil {
		return line
	}
	return err.Error()
}
