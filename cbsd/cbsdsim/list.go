package cbsdsim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// list is bls, qls and jls.
func (c *call) list(f family) error {
	def := "jname,jid,vm_ram,vm_cpus,vm_os_type,ip4_addr,status,vnc"
	if f == jail {
		def = "jname,jid,ip4_addr,host_hostname,path,status"
	}
	display := strings.Split(c.args.or("display", def), ",")
	only := slices.Clone(c.args.words)
	if f != qemu { // which does not know jname=
		only = append(only, strings.Fields(c.args.get("jname"))...)
	}
	guests, err := c.guestsOf(f, c.args.get("order"))
	if err != nil {
		return err
	}
	lines := header(display, c.args.get("header"))
	for _, g := range guests {
		if len(only) > 0 && !slices.Contains(only, g.jname) {
			continue
		}
		s := row{}
		if f != jail {
			if s, err = c.settings(g.jname); err != nil {
				fmt.Fprintf(c.errw, "Error:\n%s: can't open database file for %s: %s\n", g.jname, g.jname, c.wd.guestDB(g.jname))
				continue
			}
		}
		if f == qemu && c.args.get("hidden") == "0" && s.get("hidden") == "1" {
			continue
		}
		lines = append(lines, cells(display, func(col string) string { return c.cell(g, s, col) }))
	}
	unregistered, err := c.unregistered(f, display)
	if err != nil {
		return err
	}
	c.table(append(lines, unregistered...))
	return nil
}

// cell is one column of a guest; s are the settings of a VM.
func (c *call) cell(g guest, s row, column string) string {
	switch column {
	case "jid":
		return strconv.Itoa(g.jid)
	case "status":
		return c.statusWord(g)
	case "nodename":
		return c.nodename()
	}
	if g.emulator == "jail" {
		if column == "path" {
			return c.jailPath(g.row)
		}
		return orDash(g.row.get(column))
	}
	return vmCell(s, g.bind, column, func() string {
		if v, ok := g.row.values[column]; ok {
			return v
		}
		return s.get(column)
	})
}

// vmCell is a column that VMs have in their settings; other says what any other is.
func vmCell(s row, bind, column string, other func() string) string {
	v := s.get(column)
	switch column {
	case "vnc":
		return s.get(bind) + ":" + s.get("vnc_port")
	case "vm_ram":
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return "0"
		}
		return strconv.FormatInt(n/mb, 10)
	case "vm_curmem", "pcpu":
		return "0"
	case "ip4_addr":
		if v == "" {
			return "DHCP"
		}
	case "vnc_port", "vm_zfs_guid", "vm_cpus", "vm_os_type", "tags", "astart", "protected", "hidden":
	default:
		v = other()
	}
	if v == "" {
		return "0"
	}
	return v
}

func (c *call) jailPath(r row) string {
	if r.get("baserw") == "1" {
		return r.get("data")
	}
	return r.get("path")
}

func (c *call) statusWord(g guest) string {
	switch g.status {
	case stateOff:
		return "Off"
	case stateOn:
		return "On"
	case stateSlave:
		return "Slave"
	case stateMaintenance:
		if reason := g.row.get("maintenance"); g.emulator != "jail" && reason != "" && reason != "0" {
			return "Maintenance:" + reason
		}
		return "Maintenance"
	}
	return "Unknown"
}

func (c *call) nodename() string {
	data, err := os.ReadFile(c.wd.path("nodename"))
	if err != nil {
		return "-"
	}
	return strings.TrimSpace(string(data))
}

// unregistered are the lines of guests that are only described by a file.
func (c *call) unregistered(f family, display []string) ([][]string, error) {
	files, err := filepath.Glob(c.wd.path("jails-rcconf", "rc.conf_*"))
	if err != nil {
		return nil, err
	}
	var lines [][]string
	for _, file := range files {
		vars := readRC(file)
		if vars["emulator"] != f.emulator || vars["jname"] == "" {
			continue
		}
		s := row{}
		if f != jail {
			if s, err = c.settings(vars["jname"]); err != nil {
				s = row{}
			}
		}
		lines = append(lines, cells(display, func(col string) string {
			switch {
			case col == "status":
				return "Unregister"
			case col == "jid":
				return "0"
			case f == jail:
				return orDash(vars[col])
			case col == "vnc" || col == "ip4_addr" || col == "vnc_port":
				return vmCell(s, f.bind, col, nil)
			case col == "vm_ram":
				return vmCell(row{values: map[string]string{"vm_ram": vars[col]}}, f.bind, col, nil)
			}
			return orDash(vars[col])
		}))
	}
	return lines, nil
}

func readRC(file string) map[string]string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return readShellVariables(string(data))
}

func orDash(v string) string {
	if v == "" {
		return "-"
	}
	return v
}

// header is the first line of a table, unless show is 0.
func header(display []string, show string) [][]string {
	if show == "0" {
		return nil
	}
	return [][]string{cells(display, strings.ToUpper)}
}

// cells are the values of columns; one with spaces becomes several, as in the
// real lists, which column(1) cuts at white space.
func cells(display []string, value func(string) string) []string {
	var line []string
	for _, col := range display {
		if col != "" {
			line = append(line, strings.Fields(value(col))...)
		}
	}
	return line
}

// table prints lines as column -t does.
func (c *call) table(lines [][]string) {
	var width []int
	for _, line := range lines {
		for i, cell := range line {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		for i, cell := range line {
			b.WriteString(cell)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprint(c.out, b.String())
}
