package zfssim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func (c *call) list() error {
	name, err := c.one()
	if err != nil {
		return err
	}
	if _, _, err := c.p.find(name); err != nil {
		return err
	}
	kinds := strings.Split(c.flag("t", "filesystem,volume"), ",")
	depth := 0
	if c.has("r") {
		depth = 1 << 20
	} else if c.has("d") {
		if depth, err = strconv.Atoi(c.flag("d", "")); err != nil {
			return err
		}
	}
	var rows []string
	for _, n := range c.p.under(name) {
		level := strings.Count(n, "/") - strings.Count(name, "/")
		if level <= depth && slices.Contains(kinds, c.p.Sets[n].Kind) {
			rows = append(rows, n)
		}
		if level+1 <= depth && slices.Contains(kinds, "snapshot") {
			for _, s := range c.p.Sets[n].Snapshots {
				rows = append(rows, n+"@"+s.Name)
			}
		}
	}
	if c.flag("s", "name") == "createtxg" || c.flag("s", "name") == "creation" {
		slices.SortStableFunc(rows, func(a, b string) int { return c.p.txg(a) - c.p.txg(b) })
	}
	for _, row := range rows {
		var cells []string
		for column := range strings.SplitSeq(c.flag("o", "name"), ",") {
			v, err := c.p.value(row, column)
			if err != nil {
				return err
			}
			cells = append(cells, v)
		}
		fmt.Fprintln(c.out, strings.Join(cells, "\t"))
	}
	return nil
}

func (p *pools) txg(name string) int {
	if _, s, err := p.find(name); err == nil && s != nil {
		return s.TXG
	}
	return 0
}

// value is a property of a dataset or a snapshot; a dash where it has none.
func (p *pools) value(name, property string) (string, error) {
	d, s, err := p.find(name)
	if err != nil {
		return "", err
	}
	props := d.Props
	kind := d.Kind
	if s != nil {
		props, kind = s.all(), "snapshot"
	}
	yes := map[bool]string{true: "yes", false: "no"}
	v := ""
	switch property {
	case "name":
		v = name
	case "type":
		v = kind
	case "guid":
		v = d.ID
		if s != nil {
			v = s.GUID
		}
	case "clones":
		v = strings.Join(p.clones(name), ",")
	case "origin":
		v = d.Origin
	case "receive_resume_token":
		v = d.Token
	case "mounted", "mountpoint":
		if kind == "filesystem" {
			v = map[string]string{"mounted": yes[d.Mounted], "mountpoint": p.mountpoint(name)}[property]
		}
	case "referenced":
		v = strconv.FormatInt(p.size(name), 10)
	case "used":
		sum := int64(0)
		for _, n := range p.under(name) {
			sum += p.size(n)
		}
		v = strconv.FormatInt(sum, 10)
	case "encryption":
		v = cmp.Or(props[property], "off")
	case "available":
		if v = props["available"]; v == "" {
			v = strconv.FormatInt(1<<40, 10)
		}
	default:
		v = props[property]
		if v == "" && !strings.Contains(property, ":") && property != "volsize" && property != "compression" {
			return "", fmt.Errorf("bad property list: invalid property '%s'", property)
		}
	}
	if v == "" {
		v = "-"
	}
	return v, nil
}

func (c *call) get() error {
	if len(c.args) != 2 || c.flag("o", "") != "value" {
		return errors.New("wrong use")
	}
	name := c.args[1]
	if strings.HasPrefix(name, "/") { // of the file system that the file is in
		at := ""
		for n, d := range c.p.Sets {
			if m := c.p.mountpoint(n); d.Mounted && (name == m || strings.HasPrefix(name, m+"/")) && len(m) > len(at) {
				at, c.args[1] = m, n
			}
		}
		if at == "" {
			return fmt.Errorf("cannot open '%s': not a ZFS filesystem", name)
		}
	}
	for property := range strings.SplitSeq(c.args[0], ",") {
		if _, s, err := c.p.find(c.args[1]); c.has("s") && err == nil && s != nil && s.Props[property] == "" {
			continue // not a local one
		}
		v, err := c.p.value(c.args[1], property)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, v)
	}
	return nil
}

// all are the properties of a snapshot, wherever they are from.
func (s *Snapshot) all() map[string]string {
	all := make(map[string]string)
	maps.Copy(all, s.Received)
	maps.Copy(all, s.Props)
	return all
}
