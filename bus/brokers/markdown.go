package brokers

import (
	"fmt"
	"io"
	"strings"
)

const head = `# What each broker gives

<!-- Written by go run ./internal/brokertable from what the tests saw. Change the tests, not this. -->

The suite in bus/bustest ran against the real server of each, and this is what it saw: nothing here is a claim. How each is
started and configured is in the [README](../README.md#brokers), what goes over the wire in [WIRE.md](WIRE.md), how another one is
added in [ADDING-A-BROKER.md](ADDING-A-BROKER.md). ` + "`cbsdmq brokers`" + ` prints the same.

`

const legend = `
- **Broker** is the key of the configuration. **Promises**: how many of those below are kept, of those that are needed.
- **Durable**: what it has confirmed survives kill -9. **Order**: messages of one sender come in their order, barring redelivery.
- **Largest** is the largest message in bytes; a job has at most 65,535 on every broker. **Priority**: what another client calls
  urgent comes first; cbsdmq itself has no urgent jobs.
- **Throughput**: jobs a second end to end with 16 in flight, as a share of those on a bus in memory, where client, agent and
  commands have one processor and the servers another; in brackets where all share the two, so that a message costs the jobs
  what it costs the server. **Latency** of a job when it is the only one, as a multiple of what broker, disk and fork take alone.
  Embedded NATS and ZeroMQ have no server, and both processors; the three servers of the cluster share a disk, too. From
  ` + "`go run ./bench -broker NAME`" + `, and that with ` + "`-shared`" + `; a dash where it was not measured.

## The promises

`

// Markdown writes docs/BROKERS.md.
func (t Table) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString(head)
	titles := make([]string, len(Columns))
	for i, c := range Columns {
		titles[i] = c[:1] + strings.ToLower(c[1:])
	}
	line(&b, titles)
	rule(&b, len(titles))
	for _, broker := range t.Brokers {
		line(&b, broker.Row())
	}
	b.WriteString(legend)
	titles = []string{"promise", "in words"}
	for _, broker := range t.Brokers {
		titles = append(titles, broker.Name)
	}
	line(&b, titles)
	rule(&b, len(titles))
	for _, p := range t.Promises {
		cells := []string{p.Name, p.Text}
		for _, broker := range t.Brokers {
			cells = append(cells, string(broker.Answers[p.Name].Kept))
		}
		line(&b, cells)
	}
	b.WriteString("\nWhat has no answer does not concern the broker.\n\n## How, and why not\n")
	for _, broker := range t.Brokers {
		var said bool
		for _, p := range t.Promises {
			a := broker.Answers[p.Name]
			if a.How == "" {
				continue
			}
			if !said {
				fmt.Fprintf(&b, "\n### %s\n\n", broker.Name)
				said = true
			}
			fmt.Fprintf(&b, "- %s: %s: %s\n", p.Name, a.Kept, a.How)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func line(b *strings.Builder, cells []string) {
	for _, c := range cells {
		if c == "" {
			c = "-"
		}
		b.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
	}
	b.WriteString("|\n")
}

func rule(b *strings.Builder, n int) { b.WriteString(strings.Repeat("|---", n) + "|\n") }
