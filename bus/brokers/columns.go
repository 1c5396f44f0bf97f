package brokers

import (
	"fmt"
	"strings"
)

// Names of promises that have a column of their own.
const (
	Durability = "KillLosesNothingConfirmed"
	Order      = "Order"
	Limit      = "Limit"
	Priority   = "Priority"
	Login      = "Login"
)

// Columns are what a person looks for first.
var Columns = []string{"NAME", "BROKER", "SERVER", "PROMISES", "DURABLE", "ORDER", "LARGEST", "PRIORITY", "THROUGHPUT", "LATENCY", "LOGIN"}

// Row has a cell for each of Columns, "" where nothing is known.
func (b Broker) Row() []string {
	kept, of := b.Count()
	row := []string{
		b.Name, b.Kind, b.Server, fmt.Sprintf("%d of %d", kept, of),
		string(b.Answers[Durability].Kept), string(b.Answers[Order].Kept), size(b.MaxBody), string(b.Answers[Priority].Kept),
		"", "", strings.Join(b.Logins, ", "),
	}
	if f := b.Figures; f != nil {
		row[8], row[9] = ratio(f.Throughput), ratio(f.Latency)
		if f.Shared > 0 {
			row[8] += fmt.Sprintf(" (%.2f)", f.Shared)
		}
	}
	return row
}

// Count is how many promises are kept, of those that are needed of the broker.
func (b Broker) Count() (kept, of int) {
	for _, a := range b.Answers {
		switch a.Kept {
		case Yes:
			kept++
		case Spared:
			of--
		}
	}
	return kept, of + len(b.Answers)
}

func ratio(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

// size shows a size, to the byte where it is no round one.
func size(n int) string {
	switch {
	case n == 0:
		return ""
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprint(n)
}
