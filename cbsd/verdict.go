package cbsd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// An Exit is how a command ended.
type Exit struct {
	Code   int // exit status; 128 + Signal where a signal ended it
	Signal int // 0 where it ended by itself

	Stopped bool // it was told to end: After says what it left

	Stderr []byte // the end of it, for a reason where stdout has none
}

// A Snapshot is what After must know of the time before a change. It is small
// and can be stored as JSON.
type Snapshot struct {
	Guests map[string]GuestState `json:"guests,omitempty"` // by name; nil where nothing is checked or the state could not be read
	Files  map[string]FileState  `json:"files,omitempty"`  // by path: those that the command is to make
	Remote map[string]GuestState `json:"remote,omitempty"` // by name, on the other node of a migration; nil where it does not tell

	RemoteError string `json:"remote_error,omitempty"` // why it does not
}

// A Verdict is what became of the guest, whatever the exit code claims.
type Verdict struct {
	Outcome cbsdmq.Outcome // "" for reads, for commands without a check, and where the state could not be read
	ErrCode int            // for the reply: the exit status, but not 0 where the state asked for is not there
	Reason  string         // why ErrCode is not 0, or why there is no outcome though there should be one
	Hint    string         // what a person can do
	Now     Snapshot       // the state as far as it was read
	Remains Remains        // of a command that was told to end
}

// Before reads what must be known before plan runs. With an error nothing is
// known, and After can tell a failure but not a change.
func (p *Pool) Before(ctx context.Context, plan Plan) (Snapshot, error) {
	if !checked(plan) {
		return Snapshot{}, nil
	}
	names, err := p.targets(ctx, plan)
	if err != nil {
		return Snapshot{}, fmt.Errorf("reading state: %w", err)
	}
	s, err := p.snapshot(ctx, plan, names)
	for _, g := range s.Guests {
		for name, v := range g.Settings {
			if Redact(name) {
				g.Settings[name] = seal(v)
			}
		}
	}
	return s, err
}

// After reads the state again and says what the command did. tail is the end of
// its stdout, where CBSD prints its errors.
func (p *Pool) After(ctx context.Context, plan Plan, before Snapshot, exit Exit, tail []byte) Verdict {
	v := Verdict{ErrCode: exit.Code}
	if exit.Code != 0 {
		if v.Reason = said(exit, tail); v.Reason == "" {
			v.Reason = lastLine(tail, anything)
		}
		v.Hint = brokenHint(plan, exit)
	}
	if !checked(plan) {
		if exit.Stopped {
			v.Remains = p.remains(plan, before, Snapshot{}, finding{}, exit.Code)
		}
		return v
	}
	names := targetsOf(plan)
	if slices.Contains(plan.Lanes, WholePool) {
		for name := range before.Guests {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	now, err := p.snapshot(ctx, plan, names)
	if err == nil && (plan.Verb == Migrate || plan.Verb == Transfer) {
		p.readRemote(ctx, plan, &now)
	}
	if err != nil {
		v.Reason = join(v.Reason, "the exit code was taken as it is: "+err.Error())
		v.Remains = Remains{What: err.Error()}
		return v
	}
	v.Now = now
	f := p.judge(ctx, plan, before, now, names, exit.Code, tail)
	if exit.Stopped {
		v.Remains = p.remains(plan, before, now, f, exit.Code)
	}
	switch {
	case f.none:
	case !f.met:
		v.Outcome = cbsdmq.OutcomeFailed
		v.Reason = f.why
		if line := said(exit, tail); !f.told && line != "" && !strings.Contains(f.why, line) {
			v.Reason = clip(f.why+": "+line, reasonMax)
		}
		if v.Hint == "" {
			v.Hint = f.hint
		}
		if v.ErrCode == 0 {
			v.ErrCode = cbsdmq.ExitFailure
		}
	case before.Guests == nil:
		v.Reason = join(v.Reason, "what was there before is not known")
	case f.had:
		v.Outcome = cbsdmq.Unchanged
	default:
		v.Outcome = cbsdmq.Changed
	}
	return v
}

// checked reports whether the outcome of plan is read from the state.
func checked(plan Plan) bool {
	if plan.Class != Change {
		return false
	}
	switch plan.Verb {
	case Other, Get, List:
		return false
	}
	return true
}

// targetsOf lists the guests that the state is read of.
func targetsOf(plan Plan) []string {
	var names []string
	for _, lane := range plan.Lanes {
		if lane != WholePool && !strings.HasPrefix(lane, "!") {
			names = append(names, lane)
		}
	}
	return names
}

// targets is targetsOf with the guests that a wildcard stands for now. As in
// CBSD the match is SQL's LIKE, without regard to case.
func (p *Pool) targets(ctx context.Context, plan Plan) ([]string, error) {
	names := targetsOf(plan)
	if !slices.Contains(plan.Lanes, WholePool) {
		return names, nil
	}
	_, rows, err := p.store.rows(ctx, p.localDB(), jailNames)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		for _, a := range plan.Argv[1:] {
			pattern, isArg := strings.CutPrefix(a, "jname=")
			if (isArg || !strings.Contains(a, "=")) && row[1] == plan.Family && matches(pattern, row[0]) {
				names = append(names, row[0])
				break
			}
		}
	}
	return names, nil
}

// matches reports whether name is one that pattern stands for: * is any text.
func matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	rest, ok := strings.CutPrefix(name, parts[0])
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return ok && strings.HasSuffix(rest, parts[len(parts)-1])
}

func (p *Pool) snapshot(ctx context.Context, plan Plan, names []string) (Snapshot, error) {
	s := Snapshot{Guests: make(map[string]GuestState, len(names))}
	settings := askedNames(plan)
	for _, name := range names {
		g, err := p.state(ctx, name, plan.Verb, settings)
		if err != nil {
			return Snapshot{}, fmt.Errorf("reading the state of %s: %w", name, err)
		}
		s.Guests[name] = g
	}
	files, err := p.readFiles(ctx, plan)
	if err != nil {
		return Snapshot{}, err
	}
	s.Files = files
	return s, nil
}

// readRemote reads the other node of a migration.
func (p *Pool) readRemote(ctx context.Context, plan Plan, s *Snapshot) {
	read := p.remote
	if plan.Verb == Transfer {
		read = p.readTransferred
	}
	there, err := read(ctx, plan)
	if err != nil {
		s.RemoteError = err.Error()
		return
	}
	s.Remote = map[string]GuestState{plan.Guest: there}
}

// A finding of judge: whether the state asked for is there, and was there before.
type finding struct {
	none bool // there is nothing to judge
	met  bool
	had  bool
	why  string // it is not met
	told bool   // why says all: what the command printed at last adds nothing
	hint string
}

// judge compares what plan asked for with what is there.
func (p *Pool) judge(ctx context.Context, plan Plan, before, now Snapshot, names []string, code int, tail []byte) finding {
	if plan.Verb == Fetch {
		return p.judgeFetch(ctx, plan, before, now, tail)
	}
	if plan.Verb == Image {
		return p.judgeImage(ctx, plan, before, now)
	}
	if len(names) == 0 {
		return finding{none: true}
	}
	switch plan.Verb {
	case Clone, Rename:
		return judgeCopy(plan, before, now)
	case Export:
		return p.judgeExport(plan, before, now)
	case Migrate:
		return judgeMigrate(plan, before, now, code)
	case Transfer:
		return judgeTransfer(plan, before, now)
	}
	all := finding{none: true, met: true, had: true}
	for _, name := range names {
		f := p.judgeGuest(plan, name, before, now, code, tail)
		if f.none {
			continue
		}
		all.none = false
		all.had = all.had && f.had
		if !f.met {
			return f
		}
	}
	return all
}

func (p *Pool) judgeGuest(plan Plan, name string, before, now Snapshot, code int, tail []byte) finding {
	was, is := before.Guests[name], now.Guests[name]
	switch plan.Verb {
	case Create:
		return judgeCreate(plan, name, was, is, tail)
	case Remove:
		return judgeRemove(name, was, is)
	case Register, Unregister:
		return judgeRegister(plan, name, was, is)
	case Import:
		return p.judgeImport(plan, name, before, was, is)
	}
	if !is.Exists {
		return finding{why: missing(name, is)}
	}
	if f, ok := wrongFamily(plan, name, is); ok {
		return f
	}
	switch plan.Verb {
	case Start:
		f := finding{met: is.Running, had: was.Running, why: name + " does not run"}
		f.hint = startHint(plan, name, is, tail)
		return f
	case Stop:
		return finding{met: !is.Running, had: !was.Running, why: name + " still runs"}
	case Restart:
		return judgeRestart(plan, name, was, is, tail)
	case Pause:
		return judgePause(plan, name, was, is)
	case Set:
		return judgeSet(plan, name, was, is)
	case Disk:
		return judgeDisk(plan, name, was, is)
	case Mode:
		return judgeMode(plan, name, was, is)
	case Snapshots:
		return judgeSnapshots(plan, name, was, is, code)
	}
	return finding{none: true}
}

// Unknown says in plain words what CBSD's state shows about the guest now, for
// a job whose end cannot be known.
func (p *Pool) Unknown(ctx context.Context, plan Plan) string {
	names := targetsOf(plan)
	if len(names) == 0 {
		return "CBSD's state does not show what became of " + plan.Command
	}
	var said []string
	for _, name := range names {
		if len(said) == 5 {
			said = append(said, "...")
			break
		}
		g, err := p.state(ctx, name, Pause, nil)
		if err != nil {
			said = append(said, fmt.Sprintf("the state of %s cannot be read: %v", name, err))
			continue
		}
		said = append(said, describe(name, g))
	}
	return clip("now "+strings.Join(said, "; "), 2*reasonMax)
}

func describe(name string, g GuestState) string {
	switch {
	case !g.Exists:
		return missing(name, g)
	case g.Paused:
		return fmt.Sprintf("%s is paused (pid %d)", name, g.PID)
	case g.Running && g.PID > 0 && g.Emulator == jail:
		return fmt.Sprintf("%s runs (jid %d)", name, g.PID)
	case g.Running && g.PID > 0:
		return fmt.Sprintf("%s runs (pid %d)", name, g.PID)
	case g.Running:
		return name + " runs"
	case g.Status == statusSlave:
		return name + " is a slave and does not run"
	case g.Status == statusMaintenance:
		return name + " is in maintenance and does not run"
	}
	return name + " exists and does not run"
}

func missing(name string, g GuestState) string {
	if g.Unregistered {
		return name + " is unregistered"
	}
	return "there is no guest " + name
}
