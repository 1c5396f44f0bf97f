package cbsdsim

import (
	"strings"
)

// task is task mode=new: the command goes into the queue and stays there, as it
// does where no cbsdd runs.
func (c *call) task() error {
	switch c.args.get("mode") {
	case "new":
	case "cancelall":
		return with(c.wd.taskDB(), func(d *db) error { return d.exec("UPDATE taskd SET status = 2") })
	case "flushall":
		return with(c.wd.taskDB(), func(d *db) error { return d.exec("DELETE FROM taskd WHERE status = 2") })
	default: // says and does nothing
		return nil
	}
	// the options come first; the real one counts them and drops as many words
	skip := 1
	for _, name := range []string{"logfile", "notify", "autoflush", "node", "owner", "after", "client_id", "cast_args"} {
		if c.args.get(name) != "" {
			skip++
		}
	}
	var cmd strings.Builder
	for _, w := range c.args.raw[min(skip, len(c.args.raw)):] {
		cmd.WriteString(strings.ReplaceAll(w, `"`, "'") + " ")
	}
	if cmd.Len() == 0 {
		return c.fail("Command required")
	}
	values := [][2]string{
		{"cmd", cmd.String()}, {"status", "0"}, {"notify", c.args.or("notify", "1")}, {"autoflush", c.args.or("autoflush", "0")},
		{"owner", c.args.or("owner", "root")}, {"after", c.args.or("after", "0")}, {"client_id", c.args.or("client_id", "0")},
	}
	if logfile := c.args.get("logfile"); logfile != "" {
		values = append(values, [2]string{"logfile", logfile})
	}
	return with(c.wd.taskDB(), func(d *db) error {
		if err := d.insert("taskd", values); err != nil {
			return err
		}
		r, err := d.first("SELECT last_insert_rowid() AS id")
		c.say("%s", r.get("id"))
		return err
	})
}

// listTasks is taskls.
func (c *call) listTasks() error {
	var rows []row
	err := with(c.wd.taskDB(), func(d *db) (err error) {
		rows, err = d.query("SELECT * FROM taskd")
		return err
	})
	if err != nil {
		return err
	}
	lines := header([]string{"id", "status", "owner", "cmd", "logfile", "errcode"}, c.args.get("header"))
	states := map[string]string{"0": "Pending", "1": "In Progress", "2": "Complete"}
	for _, r := range rows {
		lines = append(lines, []string{
			r.get("id"), states[r.get("status")], r.get("owner"), r.get("cmd"), r.get("logfile"), r.get("errcode"),
		})
	}
	c.table(lines)
	return nil
}
