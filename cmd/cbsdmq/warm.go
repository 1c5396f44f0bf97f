package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// warmFlags are those of warm.
type warmFlags struct {
	target
	all, used bool
	dry       bool
	floor     sizeFlag
}

func newWarmCommand(g *globals) *cobra.Command {
	o := warmFlags{floor: 20 << 30}
	cmd := &cobra.Command{
		Use:   "warm POOL... [NAME...]",
		Short: "Fetch images of VM profiles, once for each host",
		Long: `Fetch the images of VM profiles beforehand, so that the first start of a guest does
not have to: those of NAME..., of the guests that the pools have (--used), or of all
cloud profiles (--all). A word that is the name of a pool is a POOL, every other one
the name of a profile. Without names they are listed, with sizes and the room that
is left; at a terminal you are asked then.

What is there is left alone. An image is fetched in one pool of each host, by a job
with cbsd's fetch_iso, and copied from there to the others of the host, by a job that
reads the copy again and compares checksums. On ZFS it is made a volume. Nothing is
begun that would leave less room than --floor.`,
		Example: `  cbsdmq warm pool1
  cbsdmq warm pool1 pool2 cloud-Debian-x86-12 cloud-FreeBSD-zfs-x64-14.1
  cbsdmq warm --used pool1 pool2
  cbsdmq warm --all --floor 100g pool1
  cbsdmq warm --dry-run --used pool1`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.warm(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "all cloud profiles")
	f.BoolVar(&o.used, "used", false, "the profiles that guests of the pools were made of")
	f.BoolVarP(&o.dry, "dry-run", "n", false, "say what would be done")
	f.Var(&o.floor, "floor", "leave so much `room` on each pool")
	f.Var(&o.limit, "timeout", "give up after this time; 0 never does")
	cmd.MarkFlagsMutuallyExclusive("all", "used")
	return cmd
}

// A warmPool is a pool that is warmed, and what it has.
type warmPool struct {
	name   string
	s      *session
	store  cbsdmq.Store
	images map[string]cbsdmq.Image
}

// A warmStep is one thing that warm does, as JSON.
type warmStep struct {
	Pool    string `json:"pool"`
	Profile string `json:"profile"`
	Action  string `json:"action"`         // there, fetch, copy, convert, skip
	From    string `json:"from,omitempty"` // of a copy: the pool
	fromDir string // its environment
	Bytes   int64  `json:"bytes,omitempty"`
	ID      string `json:"id,omitempty"` // of the job
	OK      bool   `json:"ok"`
	Reason  string `json:"reason,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

func (g *globals) warm(ctx context.Context, o warmFlags, args []string) error {
	o.sender = who()
	ctx, cancel := o.within(ctx)
	defer cancel()
	pools, names, err := g.warmArgs(args)
	if err != nil {
		return err
	}
	if len(names) > 0 && (o.all || o.used) {
		return usage("NAME stands in place of --all and --used: both were given")
	}
	var list []*warmPool
	for _, pool := range pools {
		s, err := g.open(ctx, pool, &o.target)
		if err != nil {
			return err
		}
		defer s.Close()
		w := &warmPool{name: pool.Name, s: s}
		if err := w.look(ctx); err != nil {
			return fmt.Errorf("pool %s: %w", pool.Name, err)
		}
		list = append(list, w)
	}
	if len(names) == 0 && !o.all && !o.used {
		if names, err = g.chooseImages(list, &o); err != nil || names == nil && !o.all && !o.used {
			return err
		}
	}
	if names, err = wanted(list, names, o); err != nil {
		return err
	}
	if len(names) == 0 {
		_, err := fmt.Fprintln(g.stdout, "no guest was made of a profile: nothing to fetch")
		return err
	}
	failed := false
	for _, name := range names {
		for _, host := range byHost(list) {
			ok, err := g.warmHost(ctx, host, name, o)
			if err != nil {
				return err
			}
			failed = failed || !ok
		}
	}
	if failed {
		return exit(cbsdmq.ExitFailure)
	}
	return nil
}

// warmArgs takes the pools out of the arguments.
func (g *globals) warmArgs(args []string) (pools []config.Found, names []string, err error) {
	known := config.Find(g.places())
	for i, arg := range args {
		if i > 0 && !slices.Contains(known.Names(), arg) {
			names = append(names, arg)
			continue
		}
		found, err := g.named(arg)
		if err != nil {
			return nil, nil, err
		}
		pools = append(pools, found)
	}
	return pools, names, nil
}

// look asks the pool's agent what is there now.
func (w *warmPool) look(ctx context.Context) error {
	store, images, err := w.s.Images(ctx)
	if err != nil {
		return err
	}
	w.store, w.images = store, make(map[string]cbsdmq.Image, len(images))
	for _, im := range images {
		w.images[im.Profile] = im
	}
	return nil
}

func (w *warmPool) image(name string) cbsdmq.Image {
	if w == nil {
		return cbsdmq.Image{}
	}
	return w.images[name]
}

// byHost puts pools of one host together, in their order.
func byHost(list []*warmPool) (hosts [][]*warmPool) {
	index := make(map[string]int)
	for _, w := range list {
		i, ok := index[w.store.Host]
		if !ok {
			i = len(hosts)
			index[w.store.Host] = i
			hosts = append(hosts, nil)
		}
		hosts[i] = append(hosts[i], w)
	}
	return hosts
}

// wanted are the profiles to fetch, sorted.
func wanted(list []*warmPool, names []string, o warmFlags) ([]string, error) {
	for _, name := range names {
		if !slices.ContainsFunc(list, func(w *warmPool) bool { _, ok := w.images[name]; return ok }) {
			return nil, cbsdmq.Errorf(cbsdmq.CodeNotFound, "NAME", "neither a pool nor a profile that can be fetched is called %s", name).
				WithHint("`cbsdmq warm %s` lists them", list[0].name)
		}
	}
	for _, w := range list {
		for _, im := range w.images {
			if o.all && im.Cloud || o.used && im.Used {
				names = append(names, im.Profile)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// warmHost brings one image to the pools of one host: fetched in the first that
// has room where none has it, then copied.
func (g *globals) warmHost(ctx context.Context, pools []*warmPool, name string, o warmFlags) (ok bool, err error) {
	var source *warmPool
	for _, w := range pools {
		if w.images[name].There && (source == nil || source.images[name].Volume) {
			source = w
		}
	}
	ok = true
	for _, w := range pools {
		im, known := w.images[name]
		step := warmStep{Pool: w.name, Profile: name, Action: "there", OK: true}
		switch {
		case im.There:
		case source == nil && !known:
			step.Action, step.OK, step.Reason = "skip", false, "the pool has no such profile"
		case source == nil:
			step.Action, step.Bytes = "fetch", im.Fetch+im.Disk
		default:
			step.Action, step.From, step.Bytes = "copy", source.name, source.images[name].Disk
			step.fromDir = source.store.Dir
		}
		done, err := g.warmStep(ctx, w, step, o)
		if err != nil {
			return false, err
		}
		ok = ok && done
		if done && o.dry && step.Action != "there" {
			im = cmp.Or(im, source.image(name))
			im.There = true
			w.images[name] = im
		}
		if done && source == nil {
			source = w
		}
	}
	for _, w := range pools {
		im := w.images[name]
		if !w.store.ZFS || !im.Cloud || !im.There || im.Volume {
			continue
		}
		done, err := g.warmStep(ctx, w, warmStep{Pool: w.name, Profile: name, Action: "convert", Bytes: im.Disk}, o)
		if err != nil {
			return false, err
		}
		ok = ok && done
	}
	return ok, nil
}

// warmStep does one step by a job, if there is room for it.
func (g *globals) warmStep(ctx context.Context, w *warmPool, step warmStep, o warmFlags) (bool, error) {
	im := w.images[step.Profile]
	cloud := "0"
	if im.Cloud {
		cloud = "1"
	}
	job := client.Job{Command: "fetch_iso", Stream: true, Args: []cbsdmq.Arg{
		{Name: "dstdir", Value: "default"}, {Name: "name", Value: step.Profile}, {Name: "cloud", Value: cloud}, {Name: "keepname", Value: "0"},
	}}
	switch step.Action {
	case "there", "skip":
		return step.OK, g.printWarm(step)
	case "copy":
		job = client.Job{Command: cbsd.CopyImage, Stream: true, Args: []cbsdmq.Arg{{Name: "from", Value: step.fromDir}, {Name: "name", Value: step.Profile}}}
	case "convert":
		job.Args = append(job.Args, cbsdmq.Arg{Name: "conv2zvol", Value: "1"})
	}
	left := w.store.Free - step.Bytes
	switch {
	case step.Bytes == 0:
		step.Action, step.Reason = "skip", "its profile does not say how large it is: fetch it yourself, cbsdmq run "+w.name+" fetch_iso name="+step.Profile
		step.OK = false
		return false, g.printWarm(step)
	case left < int64(o.floor):
		step.Reason = fmt.Sprintf("it takes %s, and %s are free: less than %s would be left (--floor)", size(step.Bytes), size(w.store.Free), size(int64(o.floor)))
		step.Action, step.OK = "skip", false
		return false, g.printWarm(step)
	case o.dry:
		step.OK = true
		w.store.Free = left
		return true, g.printWarm(step)
	}
	id, final, err := g.warmJob(ctx, w, job)
	if err != nil {
		return false, err
	}
	step.ID, step.OK, step.Reason, step.Hint = id, final.ErrCode == 0, final.Reason, final.Hint
	if err := w.look(ctx); err != nil {
		return false, err
	}
	step.Bytes = 0
	if step.OK {
		step.Bytes = w.images[step.Profile].Disk
	}
	return step.OK, g.printWarm(step)
}

// warmJob runs a job to its end, showing how far it is.
func (g *globals) warmJob(ctx context.Context, w *warmPool, job client.Job) (id string, final cbsdmq.Reply, err error) {
	watch := &watch{g: g, s: w.s, mute: true}
	defer watch.listen()()
	if watch.id, err = w.s.Submit(ctx, job); err != nil {
		return watch.id, final, err
	}
	final, err = watch.run(ctx, true)
	return watch.id, final, err
}
