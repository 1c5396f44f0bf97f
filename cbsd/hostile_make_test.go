package cbsd

import (
	"strings"

	"github.com/cbsd/cbsdmq"
)

// job makes a job for a command of the catalogue, mostly a good one with a
// little that is not.
func (h *hostile) job() cbsdmq.Job {
	cmd := catalogue()[h.names[h.rand.IntN(len(h.names))]]
	job := cbsdmq.Job{Command: cmd.name}
	if h.rand.IntN(40) == 0 {
		job.Command = h.mutate(cmd.name)
	}
	known := append(cmd.known(), "jname")
	for range h.rand.IntN(4) {
		name := known[h.rand.IntN(len(known))]
		if h.rand.IntN(8) == 0 {
			name = pick(h, []string{
				"workdir", "progress_state_file", "from", "inter", "H_CBSD_jname", "h_cbsd_jname", "JNAME", "Jname", "emulator", "quiet",
				"template_profile", "users_template_profile", "a=b", "jname=vm2", "", "-x", "a b", "$(canary)", h.mutate(name),
			})
		}
		job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: h.value(cmd, name)})
	}
	if h.rand.IntN(3) == 0 {
		job.Meta = &cbsdmq.Meta{V: cbsdmq.MetaVersion}
		for range 1 + h.rand.IntN(2) {
			job.Meta.Words = append(job.Meta.Words, h.value(cmd, "jname"))
		}
	}
	return job
}

// value makes a value that the argument could have, and often spoils it.
func (h *hostile) value(cmd *command, name string) string {
	v := pick(h, []string{
		"vm1", "vm2", "new1", "1", "0", "10g", "auto", "a.example.org", "10.0.0.1/24", "/pool1/x", "two words", "jname,status", "list", "get",
		"ssh-ed25519 AAAAC3Nza me@example.org", "virtio-net", "-A", "-s 3,x", "", "a=b", "x y=z", "none",
	})
	if h.rand.IntN(4) > 0 && cmd.namesGuest(name) {
		v = pick(h, []string{"vm1", "vm2", "new1"})
	}
	for range h.rand.IntN(3) {
		v = h.mutate(v)
	}
	return v
}

// mutate puts something hostile into s, or takes something away.
func (h *hostile) mutate(s string) string {
	at := h.rand.IntN(len(s) + 1)
	switch h.rand.IntN(12) {
	case 0: // any byte
		return s[:at] + string([]byte{byte(h.rand.IntN(256))}) + s[at:]
	case 1: // a control character
		return s[:at] + string(rune(h.rand.IntN(32))) + s[at:]
	case 2:
		return s[:at] + pick(h, unlikely) + s[at:]
	case 3, 4: // a character of the shell, of SQL, of sed
		c := "$`\\\"'~|;&<>(){}[]*?!#%^=,:@/. \t-+"
		i := h.rand.IntN(len(c))
		return s[:at] + c[i:i+1] + s[at:]
	case 5, 6:
		return s[:at] + pick(h, payloads) + s[at:]
	case 7:
		return pick(h, payloads) + s
	case 8:
		return pick(h, columnsOfTables)
	case 9:
		return s[:at] + h.planted + pick(h, []string{"/*", "/?(canary)", "/[$]*", "/$(canary)"}) + s[at:]
	case 10:
		return strings.Repeat(s, 1+h.rand.IntN(3)) + strings.Repeat("x", h.rand.IntN(300))
	}
	return s[:at]
}

func pick(h *hostile, list []string) string { return list[h.rand.IntN(len(list))] }

var payloads = []string{
	"$(canary)", "`canary`", "\";canary;\"", "';canary;'", ";canary", "&canary&", "|canary", "\ncanary\n", "\rcanary", "${x:-`canary`}", "$((canary))",
	"<(canary)", ">canary", " jname=vm2", " jname=vm2 ", "~jname=vm2", "=jname=vm2", "\" jname=vm2", "a jname=vm2", "  jname=vm2",
	" OR 1=1", "' OR '1'='1", "\" OR \"1\"=\"1", "%", "_", "vm*", "*", "../", "../../etc/passwd", "/../", "/..", "dir.id", ":e canary:", ":w canary:", "&",
	"-oProxyCommand=canary", "-S canary", "--help", "-n", "-e", "$CANARY", "#", "\\n", "%0acanary", "\x00canary", "~", "~root", "~/x",
}

var unlikely = []string{
	"\u200b", "\ufeff", "\u2028", "\u2029", "\u0085", "\u009b", "\x7f", "\xff", "\xc0\xaf", "\u00a0", "\u3000", "\uff04\uff08canary\uff09", "\u201c", "\u2019",
	"\uff5c", "\uff1b", "\u202ecanary", "\u037e", "\ud7ff", "\ufffd", "é", "日本",
}

var columnsOfTables = []string{"jname", "JNAME", "host_hostname", "emulator", "path", "rowid", "name", "status", "nodename", "null", "NULL"}
