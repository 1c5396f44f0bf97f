package cbsdsim

import (
	"slices"
	"strings"
)

// arguments are the words after the command, read as CBSD reads them.
type arguments struct {
	keys   []string          // of name=value words, in order
	values map[string]string // the last value of each
	words  []string          // the others, in order
	raw    []string          // all, in order, values in double quotes as CBSD hands them on
}

// parseArguments cuts words at a tilde and drops double quotes from values:
// the tilde separates fields while CBSD parses, so the rest of a value is lost.
func parseArguments(args []string) arguments {
	a := arguments{values: map[string]string{}}
	for _, arg := range args {
		for w := range strings.SplitSeq(arg, "~") {
			if w != "" {
				a.add(w)
			}
		}
	}
	return a
}

func (a *arguments) add(word string) {
	name, value, ok := strings.Cut(word, "=")
	if !ok || name == "" {
		a.words = append(a.words, word)
		a.raw = append(a.raw, word)
		return
	}
	value = strings.ReplaceAll(value, `"`, "")
	a.set(name, value)
	a.raw = append(a.raw, name+`="`+value+`"`)
}

func (a *arguments) set(name, value string) {
	if !slices.Contains(a.keys, name) {
		a.keys = append(a.keys, name)
	}
	a.values[name] = value
}

func (a *arguments) get(name string) string { return a.values[name] }

// or is the value of name, def when it is empty or missing.
func (a *arguments) or(name, def string) string {
	if v := a.values[name]; v != "" {
		return v
	}
	return def
}

func (a *arguments) empty() bool { return len(a.raw) == 0 }

// readArguments parses args, takes H_CBSD_NAME variables as presets, evaluates
// when told to, and complains about the first required argument that is missing.
func (c *call) readArguments(cmd command, args []string) error {
	known := append(slices.Clone(cmd.require), cmd.optional...)
	c.args = parseArguments(args)
	if c.conf.Evaluate {
		var err error
		if c.args, err = c.evaluate(known, args); err != nil {
			return err
		}
	}
	for _, name := range known {
		if v := c.getenv("H_CBSD_" + name); v != "" && c.args.get(name) == "" {
			c.args.set(name, v)
		}
	}
	for _, name := range cmd.require {
		if c.args.get(name) == "" {
			return c.fail("Please set %s: %s", cmd.app, name)
		}
	}
	return nil
}

// describe answers --args, --help and --desc.
func (c *call) describe(cmd command, flag string) {
	all := append(slices.Clone(cmd.require), cmd.optional...)
	switch flag {
	case "--args":
		c.say("node %d", len(all))
		for _, name := range all {
			c.say("%s", name)
		}
		c.say("")
	case "--help":
		c.say("[%s] %s", cmd.module, cmd.desc)
		c.say("require: %s", strings.Join(cmd.require, " "))
		c.say("opt: %s", strings.Join(cmd.optional, " "))
	case "--desc":
		c.say("[%s] %s", cmd.module, cmd.desc)
	}
}
