package zfssim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Main is zfs(8) with the pools of the directory dir.
func Main(dir string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(stderr, "missing command")
		return 2
	}
	c := &call{name: args[0], flags: make(map[string][]string), in: stdin, out: stdout}
	usage, known := options[c.name]
	if !known {
		fmt.Fprintf(stderr, "unrecognized command '%s'\n", c.name)
		return 2
	}
	if err := c.parse(usage, args[1:]); err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	var err error
	if c.p, err = open(dir); err == nil {
		err = commands[c.name](c)
		if c.name != "send" && c.name != "receive" { // which have let others at the pools meanwhile
			err = errors.Join(err, c.p.save())
		}
		c.p.lock.Close()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// A call is one run of zfs.
type call struct {
	p     *pools
	name  string
	flags map[string][]string
	args  []string
	in    io.Reader
	out   io.Writer
}

// options are the letters that a subcommand takes here, those with a value
// followed by a colon.
var options = map[string]string{
	"create": "o:V:s", "clone": "", "destroy": "r", "snapshot": "r", "list": "Hprd:t:o:s:", "get": "Hpo:s:", "set": "",
	"mount": "", "send": "nPpI:t:", "receive": "suo:",
}

var commands = map[string]func(*call) error{
	"create": (*call).create, "clone": (*call).clone, "destroy": (*call).destroy, "snapshot": (*call).snapshot,
	"list": (*call).list, "get": (*call).get, "set": (*call).set, "mount": (*call).mount,
	"send": (*call).send, "receive": (*call).receive,
}

func (c *call) parse(usage string, args []string) error {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && len(args[0]) > 1 {
		letters := args[0][1:]
		args = args[1:]
		for i, letter := range letters {
			at := strings.IndexRune(usage, letter)
			if at < 0 || letter == ':' {
				return fmt.Errorf("invalid option '%c'", letter)
			}
			name, value := string(letter), ""
			if at+1 < len(usage) && usage[at+1] == ':' {
				if value = letters[i+1:]; value == "" {
					if len(args) == 0 {
						return fmt.Errorf("missing argument for '%c' option", letter)
					}
					value, args = args[0], args[1:]
				}
				c.flags[name] = append(c.flags[name], value)
				break
			}
			c.flags[name] = append(c.flags[name], value)
		}
	}
	c.args = args
	return nil
}

func (c *call) has(flag string) bool { return c.flags[flag] != nil }

func (c *call) flag(name, otherwise string) string {
	if v := c.flags[name]; v != nil {
		return v[0]
	}
	return otherwise
}

func (c *call) one() (string, error) {
	if len(c.args) != 1 {
		return "", errors.New("wrong number of arguments")
	}
	return c.args[0], nil
}

func (c *call) props() (map[string]string, error) {
	props := make(map[string]string)
	for _, o := range c.flags["o"] {
		name, value, ok := strings.Cut(o, "=")
		if !ok {
			return nil, errors.New("missing '=' for property=value argument")
		}
		props[name] = value
	}
	return props, nil
}

func (c *call) create() error {
	name, err := c.one()
	if err != nil {
		return err
	}
	props, err := c.props()
	if err != nil {
		return err
	}
	if c.has("V") {
		props["volsize"] = c.flag("V", "")
		_, err = c.p.add(name, "volume", props)
		return err
	}
	if _, err = c.p.add(name, "filesystem", props); err != nil {
		return err
	}
	return c.p.mount(name)
}

func (c *call) clone() error {
	if len(c.args) != 2 {
		return errors.New("wrong number of arguments")
	}
	from, s, err := c.p.find(c.args[0])
	if err != nil {
		return err
	}
	d, err := c.p.add(c.args[1], from.Kind, map[string]string{})
	if err != nil {
		return err
	}
	d.Origin = c.args[0]
	if err := c.p.unpack(d, c.p.image(from, s)); err != nil || d.Kind != "filesystem" {
		return err
	}
	return c.p.mount(c.args[1])
}

// clones of a snapshot.
func (p *pools) clones(snapshot string) (names []string) {
	for n, d := range p.Sets {
		if d.Origin == snapshot {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func (c *call) destroy() error {
	name, err := c.one()
	if err != nil {
		return err
	}
	if _, _, err := c.p.find(name); err != nil && !strings.Contains(name, "@") {
		return err
	}
	set, snap, isSnapshot := strings.Cut(name, "@")
	names := c.p.under(set)
	if !c.has("r") {
		names = []string{set}
		if d := c.p.Sets[set]; !isSnapshot && (len(c.p.under(set)) > 1 || len(d.Snapshots) > 0) {
			return fmt.Errorf("cannot destroy '%s': %s has children\nuse '-r' to destroy the datasets below it", name, d.Kind)
		}
	}
	found := false
	for _, n := range names { // before anything is touched
		for _, s := range c.p.Sets[n].Snapshots {
			if isSnapshot && s.Name != snap {
				continue
			}
			found = true
			for _, clone := range c.p.clones(n + "@" + s.Name) {
				if isSnapshot || !slices.Contains(names, clone) {
					return fmt.Errorf("cannot destroy '%s': %s has dependent clones\nuse '-R' to destroy the following datasets:\n%s", name, c.p.Sets[n].Kind, clone)
				}
			}
		}
	}
	if isSnapshot && !found {
		return errors.New("could not find any snapshots to destroy; check snapshot names")
	}
	for _, n := range slices.Backward(names) {
		d := c.p.Sets[n]
		d.Snapshots = slices.DeleteFunc(d.Snapshots, func(s *Snapshot) bool {
			return (!isSnapshot || s.Name == snap) && os.Remove(c.p.image(d, s)) == nil
		})
		if isSnapshot {
			continue
		}
		if err := c.p.unmount(n); err != nil {
			return err
		}
		_ = os.Remove(c.p.partial(d))
		if err := os.RemoveAll(c.p.data(d)); err != nil {
			return err
		}
		delete(c.p.Sets, n)
	}
	return nil
}

func (c *call) snapshot() error {
	name, err := c.one()
	if err != nil {
		return err
	}
	set, snap, ok := strings.Cut(name, "@")
	if !ok {
		return fmt.Errorf("cannot create snapshot '%s': missing '@' delimiter in snapshot name", name)
	}
	if _, _, err := c.p.find(set); err != nil {
		return err
	}
	names := []string{set}
	if c.has("r") {
		names = c.p.under(set)
	}
	for _, n := range names {
		if err := c.p.snapshot(n, snap); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) set() error {
	if len(c.args) < 2 {
		return errors.New("wrong number of arguments")
	}
	last := len(c.args) - 1
	for _, arg := range c.args[:last] {
		if err := c.setOne(arg, c.args[last]); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) setOne(arg, name string) error {
	property, value, _ := strings.Cut(arg, "=")
	d, s, err := c.p.find(name)
	switch {
	case err != nil:
		return err
	case s != nil:
		if s.Props == nil {
			s.Props = make(map[string]string)
		}
		s.Props[property] = value
		return nil
	case property != "mountpoint":
		d.Props[property] = value
		return nil
	}
	was := d.Mounted // mounted again at the new place
	if err := c.p.unmount(name); err != nil {
		return err
	}
	d.Props[property] = value
	if was {
		return c.p.mount(name)
	}
	return nil
}

func (c *call) mount() error {
	name, err := c.one()
	if err == nil {
		_, _, err = c.p.find(name)
	}
	if err != nil {
		return err
	}
	return c.p.mount(name)
}

// Adopt makes a directory with what is in it the file system name, mounted there.
func Adopt(dir, name, at string) error {
	p, err := open(dir)
	if err != nil {
		return err
	}
	defer p.lock.Close()
	for parent := filepath.Dir(name); parent != "."; parent = filepath.Dir(parent) {
		if p.Sets[parent] == nil {
			p.Sets[parent] = &Dataset{ID: guid(), Kind: "filesystem", Props: map[string]string{"mountpoint": "none"}}
		}
	}
	p.Sets[name] = &Dataset{ID: guid(), Kind: "filesystem", Mounted: true, Props: map[string]string{"mountpoint": at}}
	return p.save()
}

// Volume returns the file that has the bytes of a volume.
func Volume(dir, name string) (string, error) {
	p, err := open(dir)
	if err != nil {
		return "", err
	}
	defer p.lock.Close()
	d, _, err := p.find(name)
	if err != nil {
		return "", err
	}
	return p.data(d), nil
}
