package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// locateWait is how long each pool has to say whether it has a guest.
const locateWait = 3 * time.Second

// A place is a pool that was asked for a guest.
type place struct {
	pool  config.Found
	guest cbsdmq.Guest
	has   bool
	err   error // it could not be asked
}

// askAll asks every pool for a guest at the same time.
func (g *globals) askAll(ctx context.Context, guest string) ([]place, error) {
	pools, err := new(target).all(g, nil)
	if err != nil {
		return nil, err
	}
	places := make([]place, len(pools))
	var wg sync.WaitGroup
	for i, pool := range pools {
		wg.Go(func() { places[i] = g.askPlace(ctx, pool, guest) })
	}
	wg.Wait()
	return places, nil
}

func (g *globals) askPlace(ctx context.Context, pool config.Found, guest string) place {
	p := place{pool: pool}
	if p.err = pool.Config.Validate(); p.err != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, 2*locateWait)
	defer cancel()
	s, err := g.dial(ctx, pool, client.Options{ConnectTimeout: locateWait, RequestTimeout: locateWait})
	if err != nil {
		p.err = err
		return p
	}
	defer s.Close()
	p.guest, p.has, p.err = s.Guest(ctx, guest)
	return p
}

// locate finds the only pool that has a guest. Where one of the others cannot be
// asked it is not known to be the only one: that is an error too. line is the
// command line with the pool named, for hints.
func (g *globals) locate(ctx context.Context, guest string, line func(pool string) string) (place, error) {
	places, err := g.askAll(ctx, guest)
	if err != nil {
		return place{}, err
	}
	return only(guest, places, line)
}

func only(guest string, places []place, line func(pool string) string) (place, error) {
	var has []place
	var names, silent []string
	var errs []error
	for _, p := range places {
		switch {
		case p.has:
			has = append(has, p)
			names = append(names, p.pool.Name)
		case p.err != nil:
			silent = append(silent, p.pool.Name)
			errs = append(errs, fmt.Errorf("pool %s: %w", p.pool.Name, p.err))
		}
	}
	switch {
	case len(has) > 1:
		return place{}, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is a guest of %s", guest, strings.Join(names, " and of ")).
			WithHint("say which: `%s`", line(names[0]))
	case len(errs) > 0 && len(has) == 1:
		return place{}, errors.Join(append([]error{cbsdmq.Errorf(cbsdmq.CodeOf(errs[0]), "", "%s is a guest of %s, but %s cannot be asked for one of that name", guest, names[0], strings.Join(silent, ", ")).
			WithHint("say which pool is meant: `%s`", line(names[0]))}, errs...)...)
	case len(errs) > 0:
		return place{}, errors.Join(append([]error{cbsdmq.Errorf(cbsdmq.CodeOf(errs[0]), "", "no pool that answers has a guest %s", guest)}, errs...)...)
	case len(has) == 0:
		return place{}, cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "no pool has a guest %s", guest).
			WithHint("`cbsdmq guests --all` lists them; a guest that is to be made needs the name of its POOL")
	}
	return has[0], nil
}

// poolOfJob takes the argument POOL from args, which may be left out where the
// guests that the job names tell it, or where there is one pool only. What is
// the name of a pool is always one.
func (o *jobFlags) poolOfJob(ctx context.Context, g *globals, args []string) (config.Found, []string, error) {
	if o.file != "" || len(args) == 0 {
		return o.pool(g, args)
	}
	pools := config.Find(g.places())
	isPool := slices.Contains(pools.Names(), args[0])
	switch known := cbsd.Known(args[0]); {
	case isPool && known && len(args) == 1:
		return config.Found{}, nil, usage("COMMAND is missing: %s is a pool here, and what stands first is the pool", args[0])
	case isPool && known && !cbsd.Known(args[1]):
		return config.Found{}, nil, usage("%s is a pool here and a command too, and %s is no command that is known: name POOL and COMMAND", args[0], args[1])
	case isPool:
		return o.pool(g, args)
	case !known:
		found, rest, err := o.pool(g, args)
		if near := cbsd.Resembling(args[0]); err != nil && near != "" {
			err = errors.Join(err, cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "nor is it a command that is known").WithHint("did you mean the command %s?", near))
		}
		return found, rest, err
	}
	job, err := o.job(args)
	if err != nil {
		return config.Found{}, nil, err
	}
	found, err := g.poolOfGuests(ctx, job, args, pools)
	if err != nil {
		return found, args, err
	}
	return found, args, g.usable(found)
}

// poolOfGuests is the pool of the guests that a job names.
func (g *globals) poolOfGuests(ctx context.Context, job client.Job, args []string, pools config.Pools) (config.Found, error) {
	guests, makes := cbsd.Named(cbsdmq.Job{Command: job.Command, Args: job.Args, Meta: &cbsdmq.Meta{Words: job.Words}})
	line := func(pool string) string { return "cbsdmq run " + pool + " " + strings.Join(args, " ") }
	names := strings.Join(pools.Names(), ", ")
	switch {
	case slices.ContainsFunc(guests, cbsd.Pattern):
		return config.Found{}, usage("POOL is missing: a pattern may be of guests of several pools (%s)", names)
	case len(guests) > 0:
	case len(pools.Found) == 1 && len(pools.Broken) == 0:
		return pools.Found[0], nil
	case makes:
		return config.Found{}, usage("POOL is missing: in which pool is %s to make its guest? There are %s", args[0], names)
	default:
		return config.Found{}, usage("POOL is missing: %s names no guest that would tell it; there are %s", args[0], names)
	}
	var found config.Found
	for i, guest := range guests {
		p, err := g.locate(ctx, guest, line)
		if err != nil {
			return found, err
		}
		if i > 0 && p.pool.Name != found.Name {
			return found, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is a guest of %s, %s of %s", guests[0], found.Name, guest, p.pool.Name).
				WithHint("a job is for one pool: send one for each")
		}
		found = p.pool
	}
	return found, nil
}

// pausedText says who paused what, and why.
func pausedText(p *cbsdmq.Pause) string {
	text := "paused by " + p.By
	if !p.Since.IsZero() {
		text += " since " + moment(p.Since)
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// A subject is what a person names by POOL, GUEST or POOL GUEST.
type subject struct {
	pool  config.Found
	guest string // "" = the pool itself
}

func (s subject) String() string {
	if s.guest == "" {
		return "pool " + s.pool.Name
	}
	return s.pool.Name + "/" + s.guest
}

// subject finds out what args mean. One that is a pool and a guest too is
// refused. also looks for guests that are not there any more, nil does not.
func (t *target) subject(ctx context.Context, g *globals, command string, args []string, also func(context.Context, *session, string) (bool, error)) (subject, error) {
	if t.file != "" {
		if len(args) > 1 {
			return subject{}, usage("--config stands in place of POOL: both were given")
		}
		found, err := g.load(t.file)
		return subject{found, strings.Join(args, "")}, err
	}
	if len(args) == 0 {
		return subject{}, usage("POOL or GUEST is missing")
	}
	if len(args) == 2 {
		found, err := g.named(args[0])
		return subject{found, args[1]}, err
	}
	name := args[0]
	line := func(pool string) string { return fmt.Sprintf("cbsdmq %s %s %s", command, pool, name) }
	places, err := g.askAll(ctx, name)
	if err != nil {
		return subject{}, err
	}
	if also != nil {
		g.alsoHas(ctx, places, name, also)
	}
	if slices.ContainsFunc(places, func(p place) bool { return p.pool.Name == name }) {
		found, err := g.named(name)
		for _, p := range places {
			if p.has && err == nil {
				err = cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%s is a pool, and a guest of %s", name, p.pool.Name).
					WithHint("the guest: `%s`; the pool: `cbsdmq %s --config %s`", line(p.pool.Name), command, found.File)
			}
		}
		return subject{pool: found}, err
	}
	p, err := only(name, places, line)
	return subject{p.pool, name}, err
}

// alsoHas looks for a guest by other means where a pool does not have it.
func (g *globals) alsoHas(ctx context.Context, places []place, name string, also func(context.Context, *session, string) (bool, error)) {
	var wg sync.WaitGroup
	for i := range places {
		p := &places[i]
		if p.has || p.err != nil {
			continue
		}
		wg.Go(func() {
			s, err := g.dial(ctx, p.pool, client.Options{ConnectTimeout: locateWait, RequestTimeout: locateWait})
			if err != nil {
				p.err = err
				return
			}
			defer s.Close()
			p.has, p.err = also(ctx, s, name)
		})
	}
	wg.Wait()
}
