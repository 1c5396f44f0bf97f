package mutations

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/cbsd/cbsdmq/e2e/judge"
)

var (
	allFlag   = flag.Bool("all", false, "try all mutations")
	onlyFlag  = flag.String("only", "", "try the mutations with this in their name")
	seedsFlag = flag.Int("seeds", 3000, "after how many schedules a mutation has survived")
)

const root = "../.."

// mutated returns the files that m changes, with what they hold then.
func (m mutation) mutated() (map[string]string, error) {
	files := make(map[string]string)
	for _, e := range m.edits {
		text, ok := files[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return nil, fmt.Errorf("%s has this %d times, it should be once:\n%s", e.file, n, e.old)
		}
		files[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return files, nil
}

// The table follows the program: each text that is to be replaced is there.
func TestPatchesFit(t *testing.T) {
	for _, m := range table {
		if _, err := m.mutated(); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// Each check of the judge convicts something, but for the one that is about the
// bench itself.
func TestEachCheckConvicts(t *testing.T) {
	by := map[string]bool{judge.Truth: true}
	for _, m := range table {
		by[m.by] = true
	}
	for _, c := range judge.Judge(&judge.History{}, judge.Rules{}).Checks {
		if !by[c.Name] {
			t.Errorf("no mutation is for the check %q", c.Name)
		}
	}
}

type outcome struct {
	text  string // "after 17: ...", or what went wrong
	ok    bool
	build time.Duration
	run   time.Duration
}

func TestMutations(t *testing.T) {
	if testing.Short() {
		t.Skip("each takes some seconds")
	}
	var chosen []mutation
	for _, m := range table {
		if *allFlag || *onlyFlag != "" && strings.Contains(m.name, *onlyFlag) || *onlyFlag == "" && m.quick {
			chosen = append(chosen, m)
		}
	}
	begun := time.Now()
	outcomes := make([]outcome, len(chosen))
	next := make(chan int)
	var wg sync.WaitGroup
	for range 2 { // one is built while the other runs
		wg.Go(func() {
			for i := range next {
				outcomes[i] = try(t.Context(), t.TempDir(), chosen[i])
				t.Logf("%s: %s", chosen[i].name, outcomes[i].text) // the table comes late
			}
		})
	}
	for i := range chosen {
		next <- i
	}
	close(next)
	wg.Wait()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MUTATION\tCONVICTED BY\tSCHEDULES\tBUILD\tRUN")
	for i, o := range outcomes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1fs\t%.1fs\n", chosen[i].name, chosen[i].by, o.text, o.build.Seconds(), o.run.Seconds())
		if !o.ok {
			t.Errorf("survived: %s: %s", chosen[i].name, o.text)
		}
	}
	w.Flush()
	t.Logf("%d of %d mutations in %s\n%s", len(chosen), len(table), time.Since(begun).Round(time.Second), b.String())
}

var after = regexp.MustCompile(`convicted after (\d+): `)

// try builds the simulated bench over the mutated program and runs it.
func try(ctx context.Context, dir string, m mutation) (o outcome) {
	files, err := m.mutated()
	if err != nil {
		o.text = err.Error()
		return o
	}
	replace := make(map[string]string)
	for name, text := range files {
		abs, err := filepath.Abs(filepath.Join(root, name))
		if err == nil {
			replace[abs] = filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
			err = os.WriteFile(replace[abs], []byte(text), 0o600)
		}
		if err != nil {
			o.text = err.Error()
			return o
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)
	}
	if err != nil {
		o.text = err.Error()
		return o
	}
	program := filepath.Join(dir, "bench.test")
	begun := time.Now()
	build := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./e2e/simulation")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	o.build = time.Since(begun)
	if err != nil {
		o.text = "does not build: " + string(out)
		return o
	}
	begun = time.Now()
	run := exec.CommandContext(ctx, program, "-test.run", "Convict$", "-test.v", "-test.timeout", "1h", "-by", m.by, "-seeds", fmt.Sprint(*seedsFlag))
	out, err = run.CombinedOutput()
	o.run = time.Since(begun)
	if found := after.FindSubmatch(out); found != nil && err == nil {
		o.text, o.ok = string(found[1]), true
		return o
	}
	const most = 2000
	o.text = fmt.Sprintf("%v: %s", err, out[:min(len(out), most)])
	return o
}
