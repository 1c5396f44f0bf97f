package cbsd

import (
	"cmp"
	"context"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/internal/proc"
)

// scanCache is how long a list of processes is good enough to see what others
// do: making one costs milliseconds.
const scanCache = 250 * time.Millisecond

// A Busy is a command at work on a guest that is not one of ours: an
// administrator's shell, a cbsd task.
type Busy struct {
	PID     int
	TTY     string // "" without a terminal
	User    string
	Command string // command line, secrets hidden
	Guest   string
}

// A scanner lists processes.
type scanner struct {
	mu   sync.Mutex
	at   time.Time
	last []proc.Process
	err  error
	seen *sight // made of last when it is first asked for
}

// A sight is what there is of cbsd in a list of processes.
type sight struct {
	commands []commandProcess // oldest first: commands call others, and the first is what somebody typed
	parents  map[int]int      // pids, where there are commands
}

type commandProcess struct {
	proc.Process
	words []string // see commandWords
}

// list returns the processes as they were at most age ago.
func (s *scanner) list(age time.Duration) ([]proc.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh(age)
	return s.last, s.err
}

func (s *scanner) refresh(age time.Duration) {
	if age == 0 || time.Since(s.at) > age {
		s.last, s.err = proc.List()
		s.at, s.seen = time.Now(), nil
	}
}

// look returns the processes that are commands of cbsd, as they were at most
// scanCache ago.
func (s *scanner) look(words func(args []string) []string) (*sight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh(scanCache)
	if s.seen != nil {
		return s.seen, s.err
	}
	s.seen = new(sight)
	for _, pr := range s.last {
		if w := words(pr.Args); w != nil {
			s.seen.commands = append(s.seen.commands, commandProcess{pr, w})
		}
	}
	if len(s.seen.commands) > 0 {
		s.seen.parents = make(map[int]int, len(s.last))
		for _, pr := range s.last {
			s.seen.parents[pr.PID] = pr.PPID
		}
		slices.SortStableFunc(s.seen.commands, func(a, b commandProcess) int { return cmp.Compare(a.Start, b.Start) })
	}
	return s.seen, s.err
}

// Foreign looks for a command that changes one of guests and that own does not
// know. own is asked with the pid of a process and of each of its ancestors.
//
// Two commands on one guest spoil each other: nothing in CBSD keeps them apart.
// A command on a guest of that name in another pool counts where the process
// does not say which pool it works on.
func (p *Pool) Foreign(ctx context.Context, guests []string, own func(pid int) bool) (Busy, bool) {
	seen, err := p.scan.look(p.commandWords)
	if err != nil {
		p.cfg.Log.WarnContext(ctx, "processes not listed", "err", err)
		return Busy{}, false
	}
	for _, pr := range seen.commands {
		words := pr.words
		guest := namedGuest(words[1:], guests)
		if guest == "" || isOurs(pr.PID, seen.parents, own) || p.elsewhere(pr.PID) {
			continue
		}
		// The list may be older than the end of the command.
		if alive, err := proc.Alive(pr.PID, pr.Start); err == nil && !alive {
			continue
		}
		return Busy{PID: pr.PID, TTY: pr.TTY, User: userName(pr.UID), Command: shown(words), Guest: guest}, true
	}
	return Busy{}, false
}

// commandWords returns the cbsd command of a command line, its name first, if
// it is one that changes guests. CBSD's commands are scripts:
//
//	/usr/local/bin/cbsd /usr/local/cbsd/sudoexec/bstart jname="vm1"
//	cbsd bstart jname=vm1
//	cbsd -c "bstart jname=vm1"
func (p *Pool) commandWords(args []string) []string {
	if len(args) < 2 || filepath.Base(args[0]) != "cbsd" && args[0] != p.cfg.CBSD && !isShellOf(args) {
		return nil
	}
	words := args[1:]
	if words[0] == "-c" && len(words) > 1 {
		words = strings.Fields(words[1])
		if len(words) > 0 && filepath.Base(words[0]) == "cbsd" {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return nil
	}
	words = slices.Clone(words)
	words[0] = filepath.Base(words[0])
	cmd, ok := catalogue()[words[0]]
	if !ok || cmd.does != changes || cmd.name == "save-jail-info" { // runs on for seconds after each start and changes no guest
		return nil
	}
	return words
}

// isShellOf reports whether args are a shell that runs one of CBSD's scripts.
func isShellOf(args []string) bool {
	return filepath.Base(args[0]) == "sh" && strings.HasPrefix(args[1], distDir+"/")
}

// namedGuest returns the first of guests that words name; WholePool stands for any.
func namedGuest(words, guests []string) string {
	for _, w := range words {
		name := w
		if arg, v, ok := strings.Cut(w, "="); ok {
			if arg != "jname" && arg != "old" && arg != "new" && arg != "new_jname" {
				continue
			}
			name = strings.Trim(v, `"'`)
		}
		if guestName.MatchString(name) && (slices.Contains(guests, name) || slices.Contains(guests, WholePool)) {
			return name
		}
	}
	return ""
}

func isOurs(pid int, parents map[int]int, own func(int) bool) bool {
	for range len(parents) { // a list made while processes come and go may have a circle
		if pid <= 1 {
			return false
		}
		if own(pid) {
			return true
		}
		pid = parents[pid]
	}
	return false
}

// elsewhere reports whether a process says that it works on another pool.
func (p *Pool) elsewhere(pid int) bool {
	env, err := proc.Environ(pid)
	if err != nil {
		return false
	}
	for _, e := range env {
		if v, ok := strings.CutPrefix(strings.TrimPrefix(e, "cbsd_"), "workdir="); ok {
			return filepath.Clean(v) != filepath.Clean(p.cfg.Workdir)
		}
	}
	return false
}

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// shown is a command line for people.
func shown(words []string) string {
	words = slices.Clone(words)
	for i, w := range words {
		if name, _, ok := strings.Cut(w, "="); ok && Redact(name) {
			words[i] = name + "=" + Hidden
		}
	}
	return clip("cbsd "+strings.ReplaceAll(strings.Join(words, " "), `"`, ""), 200)
}
