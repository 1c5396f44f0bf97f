// Package brokers is what the suite of package bustest saw of each broker: which
// promises of the contract it keeps, and how. Nothing in it is written by hand:
// the suite and the bench write files for each broker into the directory that
// Variable names, and `go run ./internal/brokertable -write DIR` makes brokers.json
// and docs/BROKERS.md of them.
package brokers

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Variable of the environment names the directory that they write to.
const Variable = "CBSDMQ_BROKERS"

// A Table has what was seen, broker by broker.
type Table struct {
	Promises []Promise `json:"promises"` // in the order of the suite
	Brokers  []Broker  `json:"brokers"`
}

// A Promise is one test of the suite.
type Promise struct {
	Name string `json:"name"`
	Text string `json:"text"`

	Brokerless bool `json:"brokerless,omitempty"` // it is only asked for where there is no server
}

// A Broker is what was seen of one.
type Broker struct {
	Name    string            `json:"name"`     // in tests, such as "artemis"
	Kind    string            `json:"broker"`   // the key of a configuration
	Server  string            `json:"server"`   // name and version, as the server says them
	MaxBody int               `json:"max_body"` // largest message that it took, in bytes; 0 = no limit was met
	Logins  []string          `json:"logins"`   // ways to say who we are that worked
	Answers map[string]Answer `json:"promises"` // by name; what concerns it not is not there
	Figures *Figures          `json:"figures"`  // nil: not measured in this run
}

// An Answer is what became of a promise.
type Answer struct {
	Kept Kept   `json:"kept"`
	How  string `json:"how,omitempty"`  // or why not
	Text string `json:"text,omitempty"` // the promise, where an Answer stands alone
}

// Kept says whether a promise is kept.
type Kept string

// The answers there are.
const (
	Yes      Kept = "yes"
	No       Kept = "no" // the broker, or its driver, says that it cannot
	Spared   Kept = "not needed"
	Untested Kept = "not tested" // the test has not what it needs for it
	Failed   Kept = "FAILED"
)

// Figures are ratios within one run of bench, on one machine; 0 is not measured.
type Figures struct {
	Throughput float64 `json:"throughput"`       // jobs a second end to end, of those on the in-memory bus
	Shared     float64 `json:"shared,omitempty"` // the same where the servers have no processors of their own
	Latency    float64 `json:"latency"`          // of one job, of what broker, disk and fork take alone
}

//go:embed brokers.json
var recorded []byte

// Recorded is the table that came with this version.
func Recorded() (Table, error) {
	var t Table
	if err := json.Unmarshal(recorded, &t); err != nil {
		return Table{}, fmt.Errorf("reading the table of brokers: %w", err)
	}
	return t, nil
}

// Find returns the broker of that name.
func (t Table) Find(name string) (Broker, bool) {
	i := slices.IndexFunc(t.Brokers, func(b Broker) bool { return b.Name == name })
	if i < 0 {
		return Broker{}, false
	}
	return t.Brokers[i], true
}

// Names are those of the brokers.
func (t Table) Names() []string {
	names := make([]string, len(t.Brokers))
	for i, b := range t.Brokers {
		names[i] = b.Name
	}
	return names
}

// Read puts the files of a directory together. Brokers come in the order of
// names, and others behind them.
func Read(dir string, names []string) (Table, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+seen))
	if err != nil {
		return Table{}, err
	}
	var all Table
	for _, file := range files {
		var t Table
		if err := read(file, &t); err != nil {
			return Table{}, err
		}
		for i, b := range t.Brokers {
			err := read(filepath.Join(dir, b.Name+measured), &t.Brokers[i].Figures)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return Table{}, err
			}
		}
		all.Brokers = append(all.Brokers, t.Brokers...)
		all.add(t.Promises)
	}
	slices.SortStableFunc(all.Brokers, func(a, b Broker) int {
		place := func(name string) int {
			if i := slices.Index(names, name); i >= 0 {
				return i
			}
			return len(names)
		}
		return cmp.Compare(place(a.Name), place(b.Name))
	})
	return all, nil
}

// add takes promises as they are now; new ones come behind those that they follow.
func (t *Table) add(more []Promise) {
	at := 0
	for _, p := range more {
		i := slices.IndexFunc(t.Promises, func(q Promise) bool { return q.Name == p.Name })
		if i < 0 {
			i = at
			t.Promises = slices.Insert(t.Promises, i, p)
		}
		t.Promises[i] = p
		at = i + 1
	}
}

// Names of the files in the directory, behind the name of the broker.
const (
	seen     = ".seen.json"
	measured = ".measured.json"
)

// Record writes what the suite saw of the one broker of t, over what was seen of
// it before.
func (t Table) Record(dir string) error {
	var before Table
	file := filepath.Join(dir, t.Brokers[0].Name+seen)
	if err := read(file, &before); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return t.Write(file)
		}
		return err
	}
	b := t.Brokers[0]
	b.Answers = maps.Clone(before.Brokers[0].Answers)
	maps.Copy(b.Answers, t.Brokers[0].Answers)
	if _, ok := t.Brokers[0].Answers[Login]; !ok {
		b.Logins = before.Brokers[0].Logins
	}
	before.add(t.Promises)
	return Table{Promises: before.Promises, Brokers: []Broker{b}}.Write(file)
}

// Unseen are the promises that a broker was not asked for, although others were.
func (t Table) Unseen(b Broker) (names []string) {
	for _, p := range t.Promises {
		if _, ok := b.Answers[p.Name]; !ok && !p.Brokerless {
			names = append(names, p.Name)
		}
	}
	return names
}

// Record writes what was measured of a broker, over what was measured before.
func (f Figures) Record(dir, broker string) error {
	var before Figures
	file := filepath.Join(dir, broker+measured)
	if err := read(file, &before); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return write(file, Figures{
		Throughput: cmp.Or(f.Throughput, before.Throughput),
		Shared:     cmp.Or(f.Shared, before.Shared),
		Latency:    cmp.Or(f.Latency, before.Latency),
	})
}

// Write writes a table to a file.
func (t Table) Write(file string) error { return write(file, t) }

func write(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func read(file string, v any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// Differences are the promises for which two tables have different answers, and
// the brokers that only one has. Versions, figures and words may differ.
func (t Table) Differences(other Table) []string {
	var out []string
	for _, b := range t.Brokers {
		o, ok := other.Find(b.Name)
		if !ok {
			out = append(out, b.Name+" is new")
			continue
		}
		for _, p := range t.Promises {
			if now, then := b.Answers[p.Name].Kept, o.Answers[p.Name].Kept; now != then {
				out = append(out, fmt.Sprintf("%s: %s: %s, was %s", b.Name, p.Name, cmp.Or(now, "-"), cmp.Or(then, "-")))
			}
		}
	}
	for _, o := range other.Brokers {
		if _, ok := t.Find(o.Name); !ok {
			out = append(out, o.Name+" is missing")
		}
	}
	return out
}
