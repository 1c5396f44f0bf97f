package cbsd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A Finding is one thing that Probe looked at.
type Finding struct {
	Level Level  // OK, Warning or Fatal
	About string // what was looked at: "cbsd", "version", "workdir", "inventory", "allow", "arguments", "sqlreplica", "user"
	Text  string // what was found
	Hint  string // what a person can do; "" where nothing is wrong
}

// A Level says how bad a Finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Fatal   Level = "fatal"
)

// probeWait bounds the questions of Probe to cbsd.
const probeWait = 15 * time.Second

// A Report is what Probe found.
type Report struct {
	Version  string // of CBSD, "" where it could not be asked
	Findings []Finding
}

// Err is the first fatal finding as an error of cbsdmq.CodeBadConfig, or nil.
func (r Report) Err() error {
	for _, f := range r.Findings {
		if f.Level == Fatal {
			e := cbsdmq.Errorf(cbsdmq.CodeBadConfig, "cbsdenv", "%w", errors.New(f.Text))
			e.Hint = f.Hint
			return e
		}
	}
	return nil
}

func (r *Report) add(level Level, about, text, hint string) {
	r.Findings = append(r.Findings, Finding{level, about, text, hint})
}

// Probe looks whether this host's cbsd can serve the pool. Only a workdir that
// is none is fatal: the rest may come later, and says so in each reply.
func (p *Pool) Probe(ctx context.Context) Report {
	p.fit.mu.Lock()
	defer p.fit.mu.Unlock()
	program := identify(p.cfg.CBSD)
	r := p.probe(ctx)
	p.fit.take(program, r)
	return r
}

func (p *Pool) probe(ctx context.Context) Report {
	var r Report
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	if !p.probeWorkdir(&r) {
		return r
	}
	if os.Geteuid() != 0 {
		r.add(Warning, "user", "not running as root", "CBSD needs root for all but lists")
	}
	guests, readable := p.probeInventory(ctx, &r)
	if !p.probeCommand(ctx, &r) {
		return r
	}
	p.probeAllow(&r)
	if readable {
		p.probeArguments(ctx, &r, guests)
	}
	return r
}

// probeAllow looks for slips in the key allow: what is not named right is
// refused, job by job.
func (p *Pool) probeAllow(r *Report) {
	if p.allow.only && len(p.cfg.Allow) == 0 {
		r.add(Warning, "allow", "the list is empty: every job is refused", `leave the key out, or write "allow": "all"`)
	}
	for _, entry := range p.cfg.Allow {
		name, _, _ := strings.Cut(entry, ":")
		if entry != "all" && !p.host.has(name, catalogue()[name]) {
			r.add(Warning, "allow", "there is no command "+name, absentHint(name))
		}
	}
}

func (p *Pool) probeWorkdir(r *Report) bool {
	dir := p.cfg.Workdir
	const hint = "name the workdir of a CBSD environment in cbsdenv, or make one: cbsdmq init POOL DIR"
	switch info, err := os.Stat(dir); {
	case err != nil:
		r.add(Fatal, "workdir", fmt.Sprintf("%s: %v", dir, cause(err)), hint)
		return false
	case !info.IsDir():
		r.add(Fatal, "workdir", dir+" is not a directory", hint)
		return false
	}
	if !exists(p.path("nc.inventory")) {
		r.add(Fatal, "workdir", dir+" has no nc.inventory: it is not a CBSD environment", hint)
		return false
	}
	r.add(OK, "workdir", dir, "")
	return true
}

// cause is an error without the path that the text names already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

var replica = &query{table: "local", rest: "LIMIT 1", columns: []string{"sqlreplica"}}

func (p *Pool) probeInventory(ctx context.Context, r *Report) (guests [][]string, ok bool) {
	_, guests, err := p.store.rows(ctx, p.localDB(), jailNames)
	if err != nil {
		text := err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			text = "there is no " + p.localDB()
		}
		r.add(Warning, "inventory", text, "guests cannot be listed and outcomes not checked: is the environment initialised, its file system mounted?")
		return nil, false
	}
	r.add(OK, "inventory", fmt.Sprintf("%d guests", len(guests)), "")
	if row, ok, err := p.store.first(ctx, p.localDB(), replica); err == nil && ok && row[0] == "1" {
		r.add(Warning, "sqlreplica", "sqlreplica is on: CBSD may send commands on to other nodes by itself",
			"set sqlreplica=0 with cbsd initenv-tui: jobs find their pool by its queue")
	}
	return guests, true
}

var versionText = regexp.MustCompile(`^[0-9]+\.[0-9]+[0-9A-Za-z._-]*$`)

func (p *Pool) probeCommand(ctx context.Context, r *Report) bool {
	const hint = "install CBSD, or name its command with the key cbsd; until then jobs end with status 127"
	switch info, err := os.Stat(p.cfg.CBSD); {
	case err != nil:
		r.add(Warning, "cbsd", fmt.Sprintf("%s: %v", p.cfg.CBSD, cause(err)), hint)
		return false
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		r.add(Warning, "cbsd", p.cfg.CBSD+" is not a program", hint)
		return false
	}
	r.add(OK, "cbsd", p.cfg.CBSD, "")
	version := strings.TrimSpace(p.ask(ctx, "", "-c", "version"))
	if !versionText.MatchString(version) {
		r.add(Warning, "version", p.cfg.CBSD+" does not tell its version", "is it CBSD? cbsd version should print a number such as 14.1.3")
		return true
	}
	r.Version = version
	r.add(OK, "version", version, "")
	if text, err := os.ReadFile(p.path("ver")); err == nil && strings.TrimSpace(string(text)) != version {
		r.add(Warning, "version", fmt.Sprintf("the workdir was made by CBSD %s, the host has %s", clean(text), version),
			"env workdir="+p.cfg.Workdir+" cbsd initenv migrates it")
	}
	return true
}

// probeArguments asks cbsd for guests that are known from its files. Some
// versions take jname=VM1 for the name of a guest, or list another workdir than
// the one they are given (cbsd/cbsd#884).
func (p *Pool) probeArguments(ctx context.Context, r *Report, guests [][]string) {
	const hint = "this version of CBSD is broken for services: take another, see cbsd/cbsd#884"
	for _, family := range []string{bhyve, qemu, jail} {
		i := slices.IndexFunc(guests, func(row []string) bool { return row[1] == family })
		if i < 0 {
			continue
		}
		name, list := guests[i][0], family[:1]+"ls"
		out, err := p.host.run(ctx, list, "header=0", "display=jname")
		got := strings.Fields(string(out))
		switch {
		case err != nil:
			r.add(Warning, "arguments", fmt.Sprintf("cbsd %s: %v: %s", list, err, lastLine(out, anything)), hint)
		case slices.Contains(got, "JNAME"):
			r.add(Warning, "arguments", "cbsd "+list+" ignores header=0: arguments of the form key=value do not arrive", hint)
		case !slices.Contains(got, name):
			r.add(Warning, "arguments", fmt.Sprintf("cbsd %s does not list %s, which is in %s: workdir= does not arrive", list, name, p.cfg.Workdir), hint)
		default:
			r.add(OK, "arguments", "key=value and workdir= arrive", "")
		}
		return
	}
	r.add(OK, "arguments", "not tried: there are no guests yet", "")
}
