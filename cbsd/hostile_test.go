package cbsd

import (
	"bytes"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

var (
	hostileFor  = flag.Duration("hostile", 0, "how long TestHostileSenders goes on; 0 = one round")
	hostileSeed = flag.Uint64("hostile-seed", 0, "seed of TestHostileSenders; 0 = a new one")
)

// TestHostileSenders gives the policy what a hostile sender would: every
// command, every argument, mutated values, names and words. What passes is given
// to a shell that does with it what CBSD does, at every place where a value of
// its kind ends. Nothing may be evaluated, no argument may be lost, changed or
// made of another, no guest may be named but those whose lanes are held.
//
//	go test ./cbsd -run HostileSenders -hostile 10m -hostile-seed 7
func TestHostileSenders(t *testing.T) {
	seed := *hostileSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-hostile-seed %d", seed)
	h := newHostile(t, seed)
	lines := 2000
	if testing.Short() {
		lines = 400
	}
	for end := time.Now().Add(*hostileFor); ; {
		h.round(t, lines)
		if t.Failed() || time.Now().After(end) {
			break
		}
	}
	t.Logf("%d of %d jobs passed and were tried", h.passed, h.tried)
	if h.passed < lines/10 {
		t.Errorf("only %d of %d jobs passed: too little was tried", h.passed, h.tried)
	}
}

// The judge convicts what would be evaluated if there were no policy.
func TestHostileJudge(t *testing.T) {
	h := newHostile(t, 1)
	for name, line := range map[string][]string{
		"substitution":          {"bget", "jname=$(canary)"},
		"backtick":              {"bset", "jname=vm1", "tags=`canary`"},
		"tilde":                 {"bset", "jname=vm1", "tags=a~b"},
		"guest in a value":      {"bcreate", "jname=vm9", "vnc_password= jname=vm2"},
		"file of a pattern":     {"bset", "jname=vm1", "tags=" + h.planted + "/*"},
		"quote in a file":       {"bset", "jname=vm1", "tags=';canary;'"},
		"shell of a plain one":  {"bset", "jname=vm1", "cpuset=0;canary"},
		"words of a plain one":  {"bset", "jname=vm1", "cpuset=0 -s"},
		"every guest":           {"bset", "jname=jname", "tags=a"},
		"every guest by a name": {"bstart", "host_hostname"},
		"sed":                   {"bcreate", "jname=vm9", "ci_user_pw_root=a:e canary"},
		"sed that puts more":    {"bcreate", "jname=vm9", "ci_user_pw_root=a&b"},
		"swallowed":             {"bset", "jname=vm1", "tags=-n"},
	} {
		job := parseJob(line...)
		argv := []string{job.Command}
		var lanes []string
		for _, a := range job.Args {
			argv = append(argv, a.Name+"="+a.Value)
			if a.Name == "jname" {
				lanes = append(lanes, a.Value)
			}
		}
		argv = append(argv, job.Words()...)
		lanes = append(lanes, job.Words()...)
		if got := h.judge(t, []Plan{{Command: job.Command, Argv: argv, Class: Change, Lanes: lanes}}); len(got) == 0 {
			t.Errorf("%s: %q is not convicted", name, argv)
		}
	}
}

// A hostile makes jobs and judges what becomes of them.
type hostile struct {
	pool    *Pool
	rand    *rand.Rand
	names   []string // of commands
	dir     string
	bin     string // where the program canary is
	canary  string // the file that it makes
	planted string // a directory with a file whose name would be evaluated
	db      *sql.DB

	tried, passed int
}

func newHostile(t *testing.T, seed uint64) *hostile {
	dir := t.TempDir()
	h := &hostile{
		pool: barePool(t), rand: rand.New(rand.NewPCG(seed, 0)), dir: dir,
		bin: filepath.Join(dir, "bin"), canary: filepath.Join(dir, "canary"), planted: filepath.Join(dir, "planted"),
	}
	for name, cmd := range catalogue() {
		if cmd.does != terminal {
			h.names = append(h.names, name)
		}
	}
	slices.Sort(h.names)
	program(t, filepath.Join(h.bin, "canary"), "#!/bin/sh\n: > "+h.canary+"\n")
	for _, tool := range []string{"tr", "sed"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(h.bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	program(t, filepath.Join(h.planted, "$(canary)"), "canary\n")
	var err error
	if h.db, err = sql.Open("sqlite", ":memory:"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.db.Close() })
	h.db.SetMaxOpenConns(1)
	columns := strings.Fields(jailRow + " nodename")
	var rows string
	for _, guest := range []string{"vm1", "vm2", "bhyve"} {
		rows += "INSERT INTO jails (jname, host_hostname, emulator) VALUES ('" + guest + "', '" + guest + "', 'bhyve');"
	}
	if _, err := h.db.Exec("CREATE TABLE jails (" + strings.Join(columns, " TEXT, ") + " TEXT);" + rows); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hostile) round(t *testing.T, lines int) {
	var plans []Plan
	for range lines {
		job := h.job()
		h.tried++
		plan, err := h.pool.Plan(job)
		if err != nil {
			if e, ok := err.(*cbsdmq.Error); !ok || e.Code != cbsdmq.CodeRefused || e.Field == "" || e.Hint == "" {
				t.Fatalf("%+v: not a refusal with a field and a hint: %#v", job, err)
			}
			continue
		}
		h.passed++
		h.complete(t, job, plan)
		plans = append(plans, plan)
	}
	for _, verdict := range h.judge(t, plans) {
		t.Error(verdict)
	}
}

// complete checks that the plan has all of the job, in its order, and a lane for
// each guest that an argument of any name mentions.
func (h *hostile) complete(t *testing.T, job cbsdmq.Job, plan Plan) {
	want := []string{job.Command}
	for _, a := range job.Args {
		want = append(want, a.Name+"="+a.Value)
	}
	want = append(want, job.Words()...)
	got := plan.Argv
	if len(got) == len(want)+1 && got[1] == "inter=0" {
		got = slices.Delete(slices.Clone(got), 1, 2)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the job %q is planned as %q", want, plan.Argv)
	}
	for _, a := range job.Args {
		if slices.Contains([]string{"jname", "old", "new", "newjname", "new_jname", "bname"}, a.Name) &&
			a.Name != catalogue()[job.Command].path && !slices.Contains(plan.Lanes, a.Value) && catalogue()[job.Command].namesGuest(a.Name) {
			t.Fatalf("%q holds the lanes %q, not that of %s", plan.Argv, plan.Lanes, a.Value)
		}
	}
}

// judge runs plans through the shell and returns what it convicts.
func (h *hostile) judge(t *testing.T, plans []Plan) (convicted []string) {
	t.Helper()
	for _, batch := range slices.Collect(slices.Chunk(plans, 100)) {
		found := h.batch(t, batch)
		if len(found) == 0 {
			continue
		}
		for i := range batch { // one by one, to name the culprit
			for _, what := range h.batch(t, batch[i:i+1]) {
				convicted = append(convicted, fmt.Sprintf("%q: %s", batch[i].Argv, what))
			}
		}
	}
	for _, plan := range plans {
		if what := h.rows(plan); what != "" {
			convicted = append(convicted, fmt.Sprintf("%q: %s", plan.Argv, what))
		}
	}
	return convicted
}

// batch has one shell read the command lines of plans.
func (h *hostile) batch(t *testing.T, plans []Plan) (found []string) {
	t.Helper()
	script := bytes.NewBufferString(cbsdsim.ShellModel)
	for _, plan := range plans {
		cmd := catalogue()[plan.Command]
		wrapped := "0"
		if cbsdsim.Wrapped(plan.Command) {
			wrapped = "1"
		}
		known := append(cmd.known(), "jname", "emulator")
		for _, a := range plan.Argv[1:] {
			name, _, ok := strings.Cut(a, "=")
			if ok && !strings.Contains(name, "-") { // no variable of a shell, so never known
				known = append(known, name)
			}
		}
		fmt.Fprintf(script, "printf 'job\\n'; (cbsd_arguments %s %s", wrapped, quoted(strings.Join(known, " ")))
		for _, a := range plan.Argv[1:] {
			script.WriteString(" " + quoted(a))
		}
		script.WriteString(")\n")
		for _, a := range plan.Argv[1:] {
			if name, value, ok := strings.Cut(a, "="); ok {
				h.ends(script, cmd, name, value)
			}
		}
	}
	work := filepath.Join(h.dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	sh := exec.CommandContext(t.Context(), "/bin/sh")
	sh.Dir, sh.Env, sh.Stdin = work, []string{"PATH=" + h.bin}, script
	var out, errs bytes.Buffer
	sh.Stdout, sh.Stderr = &out, &errs
	if err := sh.Run(); err != nil {
		found = append(found, fmt.Sprintf("the shell: %v", err))
	}
	if errs.Len() > 0 {
		found = append(found, "the shell complains: "+errs.String())
	}
	if os.Remove(h.canary) == nil {
		found = append(found, "something was evaluated")
	}
	if entries, err := os.ReadDir(work); err != nil || len(entries) > 0 {
		found = append(found, fmt.Sprintf("files were left: %v %v", entries, err))
	}
	jobs := strings.Split(out.String(), "job\n")[1:]
	for i, plan := range plans {
		if i >= len(jobs) {
			return append(found, "the shell ended early")
		}
		if what := h.seen(plan, jobs[i]); what != "" {
			found = append(found, what)
		}
	}
	return found
}

// ends adds what CBSD does later with a value of that kind.
func (h *hostile) ends(script *bytes.Buffer, cmd *command, name, value string) {
	q := quoted(value)
	// kept in files that are read as shell, between either quotes
	fmt.Fprintf(script, "(eval \"x='%s'\"; eval 'x=\"%s\"') >/dev/null || :\n", inDouble(value), strings.ReplaceAll(value, "'", `'\''`))
	switch k := kindOf(cmd, name); {
	case k == text || name == cmd.path:
	case k == column:
		fmt.Fprintf(script, "(v=%s; IFS=,; for c in $v; do eval \"x=\\$$c\"; done)\n", q)
	default: // unquoted on a command line, and evaluated so
		fmt.Fprintf(script, "(v=%s; eval \": $v\"; x=$(echo $v); set -f; set -- $v; [ \"$x\" = \"$*\" ] || echo \"changed $v\")\n", q)
		if !isList(name) && !cmd.open && !isFlags(name) {
			fmt.Fprintf(script, "(v=%s; set -- $v; [ $# -le 1 ] || echo \"split $v\")\n", q)
		}
	}
	if c := templateMark(name); c != "" {
		fmt.Fprintf(script, "(v=%s; x=$(echo %%%%x%%%% | sed -e \"s%s%%%%x%%%%%s${v}%sg\"); [ \"$x\" = \"$v\" ] || echo \"sed $v\")\n", q, c, c, c)
	}
}

// seen compares what the shell saw with the plan.
func (h *hostile) seen(plan Plan, out string) string {
	last := map[string]string{}
	var words []string
	for line := range strings.Lines(out) {
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch kind {
		case "arg":
			name, value, _ := strings.Cut(text, "=")
			last[name] = value
		case "word":
			words = append(words, text)
		default:
			return "a value is " + kind + ": " + text
		}
	}
	for _, a := range plan.Argv[1:] {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			if len(words) == 0 || words[0] != a {
				return fmt.Sprintf("the word %q became %q", a, words)
			}
			words = words[1:]
			continue
		}
		if strings.Contains(name, "-") {
			continue
		}
		got, ok := last[name]
		if delete(last, name); !ok || strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(value), " ") {
			return fmt.Sprintf("the value of %s became %q", name, got)
		}
	}
	if len(last) > 0 || len(words) > 0 {
		return fmt.Sprintf("there are more: %q %q", last, words)
	}
	return ""
}

// rows asks a table of guests for those that the plan names, as CBSD does.
func (h *hostile) rows(plan Plan) string {
	for _, name := range plan.Lanes {
		if strings.HasPrefix(name, "!") || name == WholePool {
			continue
		}
		for _, quote := range []string{`"`, `'`} {
			var others int
			row := h.db.QueryRow("SELECT count(*) FROM jails WHERE jname="+quote+name+quote+" AND jname <> ?", name)
			if err := row.Scan(&others); err != nil || others > 0 {
				return fmt.Sprintf("the database takes %s for %d other guests (%v)", name, others, err)
			}
		}
	}
	return ""
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// inDouble writes s so that a text between double quotes holds it.
func inDouble(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s)
}
