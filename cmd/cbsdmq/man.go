package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cbsd/cbsdmq/config"
)

func newManCommand(g *globals) *cobra.Command {
	var date string
	cmd := &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Write the manual pages into a directory, made of the same texts as --help and
the annotated configuration file: cbsdmq.1, one for each subcommand, and
cbsdmq.json.5. Packages have them already.`,
		Example: `  cbsdmq man /tmp/man && man /tmp/man/cbsdmq-run.1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			day, err := time.Parse(time.DateOnly, date)
			if err != nil {
				return usage("--date: %q is not of the form 2006-01-02", date)
			}
			pages, err := manPages(cmd.Root(), day)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for name, text := range pages {
				if err := os.WriteFile(filepath.Join(args[0], name), text, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&date, "date", time.Now().Format(time.DateOnly), "`day` in their first line")
	return cmd
}

// manPages are the manual pages by file name, in mdoc(7).
func manPages(root *cobra.Command, day time.Time) (map[string][]byte, error) {
	pages := make(map[string][]byte)
	root.InitDefaultHelpCmd()
	var all []*cobra.Command
	var collect func(cmd *cobra.Command)
	collect = func(cmd *cobra.Command) {
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			if name := sub.Name(); sub.Runnable() || sub.HasSubCommands() {
				if name != "help" && cmd.Name() != "completion" {
					collect(sub)
				}
			}
		}
	}
	collect(root)
	for _, cmd := range all {
		m := &mdoc{}
		m.head(day, manName(cmd), "1", cmd.Short)
		m.command(cmd)
		pages[manName(cmd)+".1"] = m.Bytes()
	}
	m := &mdoc{}
	m.head(day, "cbsdmq.json", "5", "configuration of a pool of cbsdmq")
	if err := m.configuration([]byte(config.Example())); err != nil {
		return nil, fmt.Errorf("the annotated configuration file: %w", err)
	}
	pages["cbsdmq.json.5"] = m.Bytes()
	return pages, nil
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// mdoc is a manual page in the making.
type mdoc struct{ bytes.Buffer }

func (m *mdoc) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }

func (m *mdoc) head(day time.Time, name, section, short string) {
	m.line(".Dd %s", day.Format("January 2, 2006"))
	m.line(".Dt %s %s", strings.ToUpper(name), section)
	m.line(".Os")
	m.line(".Sh NAME")
	m.line(".Nm %s", name)
	m.line(".Nd %s", escaped(strings.ToLower(short[:1])+short[1:]))
}

func (m *mdoc) command(cmd *cobra.Command) {
	m.line(".Sh SYNOPSIS")
	m.verbatim(cmd.UseLine())
	m.line(".Sh DESCRIPTION")
	m.text(cmp.Or(cmd.Long, cmd.Short))
	if cmd.HasAvailableSubCommands() {
		m.line(".Bl -tag -width Ds")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				m.line(".It %s", escaped(sub.Use))
				m.line("%s", escaped(sub.Short))
			}
		}
		m.line(".El")
	}
	m.flags("OPTIONS", cmd.NonInheritedFlags())
	m.flags("OPTIONS OF ALL SUBCOMMANDS", cmd.InheritedFlags())
	if cmd.Example != "" {
		m.line(".Sh EXAMPLES")
		m.verbatim(strings.ReplaceAll(strings.TrimSpace(cmd.Example), "\n  ", "\n"))
	}
	m.line(".Sh SEE ALSO")
	if cmd.HasParent() {
		m.line(".Xr cbsdmq 1 ,")
	}
	m.line(".Xr cbsdmq.json 5")
}

func (m *mdoc) flags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	m.line(".Sh %s", title)
	m.line(".Bl -tag -width Ds")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		name := `\-\-` + escaped(f.Name)
		if f.Shorthand != "" {
			name = `\-` + f.Shorthand + ", " + name
		}
		m.line("%s", strings.TrimSpace(".It "+name+" "+escaped(value)))
		switch f.DefValue {
		case "", "false", "[]", "0s", time.Now().Format(time.DateOnly), who(): // the last two are of this moment and machine
		default:
			text += " (default " + f.DefValue + ")"
		}
		m.line("%s", escaped(text))
	})
	m.line(".El")
}

// configuration explains each key of an annotated file: "# key" before "key".
func (m *mdoc) configuration(example []byte) error {
	m.line(".Sh DESCRIPTION")
	dec := json.NewDecoder(bytes.NewReader(example))
	if _, err := dec.Token(); err != nil {
		return err
	}
	about := make(map[string]string)
	listed := false
	list := func(on bool) {
		if on != listed {
			m.line("%s", map[bool]string{true: ".Bl -tag -width Ds", false: ".El"}[on])
		}
		listed = on
	}
	var object func() error
	object = func() error {
		for dec.More() {
			t, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ := t.(string)
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				return err
			}
			if comment, of := strings.CutPrefix(key, "#"); of {
				if err := json.Unmarshal(value, &key); err != nil {
					return err
				}
				if comment == "" {
					m.text(key)
				}
				about[strings.TrimSpace(comment)] = key
				continue
			}
			if value[0] == '{' {
				list(false)
				m.line(".Sh SECTION %s", strings.ToUpper(escaped(key)))
				m.text(about[key])
				outer := dec
				dec = json.NewDecoder(bytes.NewReader(value))
				if _, err := dec.Token(); err != nil {
					return err
				}
				about = make(map[string]string)
				if err := object(); err != nil {
					return err
				}
				dec = outer
				continue
			}
			list(true)
			m.line(".It %s : %s", escaped(key), escaped(string(value)))
			m.text(about[key])
		}
		list(false)
		return nil
	}
	if err := object(); err != nil {
		return err
	}
	m.line(".Sh FILES")
	m.line(".Bl -tag -width Ds")
	m.line(".It %s/*.json", config.DefaultPools)
	m.line("the pools that clients find by name, and that the agents of this host serve")
	m.line(".El")
	m.line(".Sh SEE ALSO")
	m.line(".Xr cbsdmq 1 ,")
	m.line(".Xr cbsdmq-check 1")
	return nil
}

// text writes paragraphs. Lines that are indented stay as they are.
func (m *mdoc) text(s string) {
	if s = strings.TrimSpace(s); s == "" {
		return
	}
	for i, par := range strings.Split(s, "\n\n") {
		if i > 0 {
			m.line(".Pp")
		}
		if strings.HasPrefix(par, "  ") {
			m.verbatim(par)
			continue
		}
		for line := range strings.Lines(par) {
			m.line("%s", escaped(strings.TrimSpace(line)))
		}
	}
}

func (m *mdoc) verbatim(s string) {
	m.line(".Bd -literal -offset indent")
	for line := range strings.Lines(strings.TrimSpace(s)) {
		m.line("%s", escaped(strings.TrimRight(line, "\n")))
	}
	m.line(".Ed")
}

// escaped is s as text that roff takes for nothing else.
func escaped(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
