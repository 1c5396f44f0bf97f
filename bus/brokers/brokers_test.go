package brokers

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadAndCompare(t *testing.T) {
	dir := t.TempDir()
	promises := []Promise{{Name: "A", Text: "a"}, {Name: "B", Text: "b"}}
	one := func(name string, answers map[string]Answer, ps ...Promise) Table {
		return Table{Promises: ps, Brokers: []Broker{{Name: name, Server: name + " 1", Answers: answers}}}
	}
	yes, no := Answer{Kept: Yes}, Answer{Kept: No, How: "not at all"}
	for _, table := range []Table{
		one("x", map[string]Answer{"A": yes, "B": no}, promises...),
		one("y", map[string]Answer{"Z": yes, "A": yes, "B": yes}, Promise{Name: "Z"}, promises[0], promises[1]),
	} {
		if err := table.Record(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []Figures{{Throughput: 0.7, Latency: 2}, {Shared: 0.5}} {
		if err := f.Record(dir, "x"); err != nil {
			t.Fatal(err)
		}
	}
	more := one("y", map[string]Answer{"A": no}, Promise{Name: "Z"}, promises[0], promises[1])
	if err := more.Record(dir); err != nil { // -run named one test
		t.Fatal(err)
	}
	all, err := Read(dir, []string{"y", "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := all.Names(); !slices.Equal(got, []string{"y", "x"}) {
		t.Errorf("brokers %q", got)
	}
	var names []string
	for _, p := range all.Promises {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"Z", "A", "B"}) {
		t.Errorf("promises %q", names)
	}
	y, _ := all.Find("y")
	if y.Answers["A"] != no || y.Answers["Z"] != yes {
		t.Errorf("answers %v", y.Answers)
	}
	x, _ := all.Find("x")
	if got := all.Unseen(x); !slices.Equal(got, []string{"Z"}) {
		t.Errorf("unseen %q", got)
	}
	if row := strings.Join(x.Row(), " "); !strings.Contains(row, "1 of 2") || !strings.Contains(row, "0.70 (0.50) 2.00") {
		t.Errorf("row %q", row)
	}
	other := one("x", map[string]Answer{"A": yes, "B": yes}, promises...)
	want := []string{"y is new", "x: B: no, was yes"}
	if diff := cmp.Diff(want, all.Differences(other)); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}
