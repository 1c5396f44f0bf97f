// Command brokertable puts together what the suite of bus/bustest wrote down of
// each broker, and prints it as a table:
//
//	CBSDMQ_BROKERS=/tmp/seen ./test.sh -count=1     (the directory must be there)
//	go run ./internal/brokertable /tmp/seen
//	go run ./internal/brokertable -write /tmp/seen  also makes bus/brokers/brokers.json and docs/BROKERS.md
//
// It fails where a broker is missing or failed, and, without -write, where the run
// saw another answer than the committed table has.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/cbsd/cbsdmq/bus/brokers"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func main() {
	write := flag.Bool("write", false, "make the committed table anew")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: brokertable [-write] DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Stdout, flag.Arg(0), *write); err != nil {
		fmt.Fprintln(os.Stderr, "brokertable:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, dir string, write bool) error {
	var names []string
	for _, b := range testserver.Brokers {
		if b.Same == "" {
			names = append(names, b.Name)
		}
	}
	seen, err := brokers.Read(dir, names)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(brokers.Columns, "\t"))
	for _, b := range seen.Brokers {
		fmt.Fprintln(t, strings.Join(b.Row(), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var wrong []error
	for _, name := range names {
		b, ok := seen.Find(name)
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s was not tested", name))
			continue
		}
		for _, promise := range seen.Unseen(b) {
			wrong = append(wrong, fmt.Errorf("%s: %s: the test did not run", name, promise))
		}
		for promise, a := range b.Answers {
			if a.Kept == brokers.Failed || a.Kept == brokers.Untested {
				wrong = append(wrong, fmt.Errorf("%s: %s: %s", name, promise, a.Kept))
			}
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	if !write {
		recorded, err := brokers.Recorded()
		if err != nil {
			return err
		}
		if d := seen.Differences(recorded); len(d) > 0 {
			return fmt.Errorf("docs/BROKERS.md says something else, make it anew with -write:\n%s", strings.Join(d, "\n"))
		}
		return nil
	}
	if err := seen.Write("bus/brokers/brokers.json"); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := seen.Markdown(&text); err != nil {
		return err
	}
	return os.WriteFile("docs/BROKERS.md", text.Bytes(), 0o644)
}
