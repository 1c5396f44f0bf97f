package brokers

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The document and what `cbsdmq brokers` prints are of one run.
func TestDocument(t *testing.T) {
	recorded, err := Recorded()
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := recorded.Markdown(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/BROKERS.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("docs/BROKERS.md is not of brokers.json (-want +got): make both with go run ./internal/brokertable -write\n%s", diff)
	}
}

// Whatever has a column is a promise that every broker was asked for.
func TestColumns(t *testing.T) {
	recorded, err := Recorded()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Durability, Order, Limit, Priority, Login} {
		if !slices.ContainsFunc(recorded.Promises, func(p Promise) bool { return p.Name == name && p.Text != "" }) {
			t.Errorf("there is no promise %s", name)
		}
		for _, b := range recorded.Brokers {
			if b.Answers[name].Kept == "" {
				t.Errorf("%s has no answer for %s", b.Name, name)
			}
		}
	}
	for _, b := range recorded.Brokers {
		if len(b.Row()) != len(Columns) || b.Server == "" {
			t.Errorf("%s: row %q", b.Name, b.Row())
		}
	}
}
