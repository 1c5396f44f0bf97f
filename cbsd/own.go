package cbsd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// Commands of cbsdmq's own: what CBSD cannot do, as a job like any other. The
// runner starts this program for them, with the same environment.
const (
	CopyImage = "cbsdmq-image"    // copy the image of a profile from another environment of this host
	MoveGuest = "cbsdmq-transfer" // move a guest to another environment of this host
	HoldGuest = "cbsdmq-hold"     // keep the name of a guest free while it is moved here
)

func ownCommands() []command {
	return []command{
		{name: CopyImage, own: true, mute: true, verb: Image, args: "from name"},
		{name: MoveGuest, own: true, mute: true, verb: Transfer, guests: "jname", args: "jname to"},
		{name: HoldGuest, own: true, mute: true, guests: "jname", args: "from jname"},
	}
}

// asked is the subcommand that sends a job of our own.
var asked = map[string]string{CopyImage: "warm", MoveGuest: "transfer", HoldGuest: "transfer"}

// checkOwn refuses a command of our own that lacks an argument, or names an
// environment that is none.
func (p *Pool) checkOwn(plan *Plan) error {
	need := map[string][]string{CopyImage: {"from", "name"}, MoveGuest: {"jname", "to"}, HoldGuest: {"from", "jname"}}[plan.Command]
	for _, name := range need {
		v, _ := plan.Arg(name)
		if v == "" {
			return refuse("CommandArgs."+name, "is missing", "`cbsdmq "+asked[plan.Command]+"` sends this job")
		}
		if name != "from" && name != "to" {
			continue
		}
		switch {
		case !plainPath.MatchString(v) || filepath.Clean(v) != v:
			return refuse("CommandArgs."+name, "is not the path of an environment", "an absolute path such as /pool1")
		case v == p.cfg.Workdir:
			return refuse("CommandArgs."+name, "is the pool's own environment", "name another pool")
		case !exists(filepath.Join(v, "nc.inventory")):
			return refuse("CommandArgs."+name, fmt.Sprintf("this host has no CBSD environment %s", v), "both pools must be on one host")
		}
	}
	return nil
}

// Own carries out a command of ours in the environment workdir. args are those
// of the plan. What it has to say goes to out.
func Own(ctx context.Context, workdir, cbsd string, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	a := make(map[string]string)
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		a[name] = value
	}
	p := &Pool{cfg: Config{Workdir: workdir, CBSD: cbsd}, store: newStore()}
	defer p.Close()
	switch args[0] {
	case CopyImage:
		return p.copyImage(ctx, a["from"], a["name"], out)
	case MoveGuest:
		t := newTransfer(a["jname"], workdir, a["to"], cbsd, out)
		defer t.close()
		return t.run(ctx)
	case HoldGuest:
		return p.hold(ctx, a["jname"], a["from"], out)
	}
	return fmt.Errorf("there is no command %s", args[0])
}

// copyImage copies the image of a profile from another environment, and compares
// what is on the disk then with what was read.
func (p *Pool) copyImage(ctx context.Context, from, name string, out io.Writer) error {
	source := &Pool{cfg: Config{Workdir: from}, store: newStore()}
	defer source.Close()
	pr, err := source.profile(ctx, name)
	if err != nil {
		return err
	}
	file := p.Image(pr)
	if exists(file) {
		fmt.Fprintf(out, "%s is there\n", file)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	fmt.Fprintf(out, "copying %s to %s\n", source.Image(pr), file)
	sum, err := copyChecked(ctx, source.Image(pr), file)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "sha256 %s\n", hex.EncodeToString(sum[:]))
	return nil
}

// partial is what a file is called while it is copied.
func partial(file string) string { return file + ".cbsdmq-part" }

// copyChecked copies a file under another name, reads it again from the disk,
// and gives it its name when the sums are equal.
func copyChecked(ctx context.Context, from, to string) (sum [sha256.Size]byte, err error) {
	in, err := os.Open(from)
	if err != nil {
		return sum, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return sum, err
	}
	part := partial(to)
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return sum, err
	}
	defer f.Close()
	read := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, read), &interruptible{ctx, in})
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return sum, errors.Join(fmt.Errorf("copying %s: %w", from, err), os.Remove(part))
	}
	written := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return sum, err
	}
	if _, err := io.Copy(written, &interruptible{ctx, f}); err != nil {
		return sum, errors.Join(fmt.Errorf("reading %s again: %w", part, err), os.Remove(part))
	}
	if string(read.Sum(nil)) != string(written.Sum(nil)) {
		return sum, errors.Join(fmt.Errorf("%s: %d bytes were written, and others are read", part, size), os.Remove(part))
	}
	if err := os.Rename(part, to); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(read.Sum(nil)), nil
}

// interruptible ends reading when ctx ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// profile finds a profile by its name.
func (p *Pool) profile(ctx context.Context, name string) (Profile, error) {
	list, err := p.Profiles(ctx)
	if err != nil {
		return Profile{}, err
	}
	for _, pr := range list {
		if pr.Name == name {
			return pr, nil
		}
	}
	return Profile{}, fmt.Errorf("%s has no profile %s", p.cfg.Workdir, name)
}

// copied is the file that a cbsdmq-image job makes; the profile may be known in
// the environment that it comes from only.
func (p *Pool) copied(ctx context.Context, plan Plan) (file, source string, err error) {
	from, _ := plan.Arg("from")
	name, _ := plan.Arg("name")
	other := &Pool{cfg: Config{Workdir: from}, store: newStore()}
	defer other.Close()
	pr, err := other.profile(ctx, name)
	if err != nil {
		return "", "", err
	}
	return p.Image(pr), other.Image(pr), nil
}

func (p *Pool) judgeImage(ctx context.Context, plan Plan, before, now Snapshot) finding {
	name, _ := plan.Arg("name")
	file, _, err := p.copied(ctx, plan)
	if err != nil {
		return finding{why: err.Error()}
	}
	return finding{met: now.Files[file].Exists, had: before.Files[file].Exists, why: fmt.Sprintf("%s was not copied: there is no %s", name, file)}
}

// Images lists the profiles of the pool with what is there of their images, and
// the room for them.
func (p *Pool) Images(ctx context.Context) (cbsdmq.Store, []cbsdmq.Image, error) {
	s := cbsdmq.Store{Dir: p.cfg.Workdir}
	s.ZFS, _, _ = p.filesystem()
	var err error
	if s.Free, s.Size, err = room(p.cfg.Workdir); err != nil {
		return s, nil, fmt.Errorf("the room of %s: %w", p.cfg.Workdir, err)
	}
	profiles, err := p.Profiles(ctx)
	if err != nil {
		return s, nil, err
	}
	used := p.usedProfiles(ctx)
	images := make([]cbsdmq.Image, len(profiles))
	for i, pr := range profiles {
		is := fileState(p.Image(pr))
		images[i] = cbsdmq.Image{
			Profile: pr.Name, OS: pr.OS, Title: pr.Title, Cloud: pr.Cloud, Fetch: pr.Size, Disk: pr.Disk,
			There: is.Exists, Volume: is.Link, Used: used[pr.Name],
		}
		if is.Exists && !is.Link {
			images[i].Disk = is.Size
		}
	}
	return s, images, nil
}

// usedProfiles are those that VMs of the pool were made of. What cannot be read
// is left out.
func (p *Pool) usedProfiles(ctx context.Context) map[string]bool {
	used := make(map[string]bool)
	_, rows, err := p.store.rows(ctx, p.localDB(), jailNames)
	if err != nil {
		return used
	}
	for _, row := range rows {
		if !isVM(row[1]) {
			continue
		}
		if s, err := p.store.record(ctx, p.guestDB(row[0]), allSettings); err == nil {
			used[s["vm_os_profile"]] = true
		}
	}
	return used
}
