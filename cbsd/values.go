package cbsd

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CBSD evaluates the value of each argument as shell (subr/nc.subr, init), and
// many scripts use it again: unquoted on a command line, between single quotes
// in a file that is sourced, as the name of a variable in an eval, as the name
// of a file that is executed. What may be in a value depends on where it ends:
//
//	text     kept and printed: everything but the characters that init evaluates
//	plain    the rest: no character that means something to a shell, and no
//	         space but in lists
//	column   evaluated as the name of a variable: letters, digits, _ and commas
//	profile  part of the name of a file that is sourced: plain, no slash
//	file     names a file that CBSD sources, executes or writes to: only what Allow names
type kind uint8

const (
	plain kind = iota
	text
	column
	profile
	file
)

// kindOf says what may be in the value of an argument of cmd.
func kindOf(cmd *command, name string) kind {
	if hasField(cmd.files, name) {
		return file
	}
	switch name {
	case "display":
		return column
	case "tags", "comment", "vnc_password", "spice_password", "pw", "fullname":
		return text
	case "cmd":
		if cmd.does == runs {
			return text
		}
	case "vm_os_type", "vm_os_profile", "jprofile", "jail_profile", "flavor", "ci_template", "cloudengine", "module", "checkpoint", "snapname", "emulator":
		return profile
	case "jconf", "rcconf", "header_extra", "exec_consolelog", "cbsdfile", "cwd", "rcfile", "extra_profile_dir", "fromfile", "formfile", "conf", "cmdfile", "script", "scene",
		"bhyve_cmd", "bhyverun_wrapper", "bhyvestop_wrapper", "mnt_start", "mnt_stop",
		"exec_prestart", "exec_poststart", "exec_prestop", "exec_poststop",
		"exec_master_prestart", "exec_master_poststart", "exec_master_prestop", "exec_master_poststop",
		"dhcpd_helper", "editor":
		return file
	}
	if strings.HasPrefix(name, "ci_user_pw") || strings.HasPrefix(name, "ci_user_pubkey") || strings.HasPrefix(name, "ci_user_gecos") {
		return text
	}
	return plain
}

// harmless reports whether value is what CBSD itself puts where a file could be
// named: nothing, or its own program.
func harmless(name, value string) bool {
	switch value {
	case "", "0", "none":
		return true
	case "/usr/sbin/bhyve":
		return name == "bhyve_cmd"
	case "/usr/local/cbsd/share/bhyverun.sh":
		return name == "bhyverun_wrapper"
	}
	return false
}

// A flaw is what is wrong with a value, and the way out.
type flaw struct{ what, hint string }

const evaluated = "CBSD runs this as shell, as root; leave it out"

// badText finds what no value may contain.
func badText(v string) (flaw, bool) {
	if strings.HasPrefix(v, " ") {
		return flaw{"begins with a space", "CBSD would take what follows for an argument of its own; leave the space out"}, true
	}
	if i := strings.IndexAny(v, "*?["); i >= 0 && strings.Contains(v, "/") {
		return flaw{fmt.Sprintf("contains the character %c in a path", v[i]), "CBSD would replace it by the names of the host's files, and run what is in these; name the file"}, true
	}
	if v == "-n" || v == "-e" {
		return flaw{"is " + v, "CBSD passes values through echo, which would swallow it"}, true
	}
	for i, r := range v {
		switch {
		case r == utf8.RuneError && isInvalid(v[i:]):
			return flaw{fmt.Sprintf("is not valid UTF-8 at byte %d", i), "send text in UTF-8"}, true
		case r == '\n' || r == '\r':
			return flaw{"contains a line break", "CBSD takes one line only; put longer texts into a file on the host and name the file"}, true
		case r == 0:
			return flaw{"contains a NUL character", "leave it out"}, true
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return flaw{fmt.Sprintf("contains the control character %U", r), "leave it out"}, true
		case r == '$' || r == '`' || r == '\\' || r == '"':
			return flaw{fmt.Sprintf("contains the character %c", r), evaluated}, true
		case r == '\'':
			return flaw{"contains the character '", "CBSD puts it between such quotes in SQL and in files that it runs as shell; leave it out"}, true
		case r == '~':
			return flaw{"contains the character ~", "CBSD separates arguments with it and would lose the rest; leave it out"}, true
		case r == '|':
			return flaw{"contains the character |", "CBSD separates columns with it and would mix them up; leave it out"}, true
		}
	}
	return flaw{}, false
}

func isInvalid(s string) bool {
	_, size := utf8.DecodeRuneInString(s)
	return size == 1
}

// badPlain finds what a value must not contain that may end unquoted on a
// command line of a script. flags may begin with a dash.
func badPlain(v string, flags bool) (flaw, bool) {
	if i := strings.IndexAny(v, ";&<>()"); i >= 0 {
		return flaw{fmt.Sprintf("contains the character %c", v[i]), evaluated}, true
	}
	if leadsUp(v) {
		return flaw{"leads upwards with ..", "write the path without it"}, true
	}
	if !flags && len(v) > 1 && v[0] == '-' && (v[1] < '0' || v[1] > '9') {
		return flaw{"begins with a dash", "a program that CBSD calls would take it for an option"}, true
	}
	return flaw{}, false
}

var columns = regexp.MustCompile(`^[A-Za-z0-9_]*(,[A-Za-z0-9_]*)*$`)

// badValue checks the value of an argument of cmd that names neither a guest
// nor a file.
func badValue(cmd *command, name, v string) (flaw, bool) {
	if f, bad := badText(v); bad {
		return f, true
	}
	k := kindOf(cmd, name)
	if k == column && !columns.MatchString(v) {
		return flaw{"is not a list of columns", "CBSD evaluates it; write names of letters, digits and _ with commas between them, such as jname,status"}, true
	}
	if k == profile && strings.Contains(v, "/") {
		return flaw{"contains a slash", "CBSD makes the name of a file of it that it reads as shell; write the bare name"}, true
	}
	if strings.EqualFold(v, name) {
		return flaw{"is the name of its own column", "CBSD's database would take it for the column itself, and every row would match; leave it out"}, true
	}
	if c := templateMark(name); c != "" {
		if strings.Contains(v, c) {
			return flaw{"contains the character " + c, "CBSD fills a template with it by sed, where what follows would be commands of sed; leave it out"}, true
		}
		if strings.Contains(v, "&") {
			return flaw{"contains the character &", "CBSD fills a template with it by sed, which would put other text in its place; leave it out"}, true
		}
	}
	if cmd.verb == Set && cmd.family != jail && strings.Contains(v, "%") {
		return flaw{"contains the character %", cmd.name + " would make a space of it; leave it out"}, true
	}
	if cmd.resplit && strings.Contains(v, " ") {
		return flaw{"contains a space", "CBSD's wrapper " + cmd.name + " would take what follows for further arguments"}, true
	}
	// qcreate assigns each value with an eval of its own, unquoted.
	evals := cmd.family == qemu && cmd.verb == Create && !publicKey.MatchString(v)
	if k != text || evals {
		if f, bad := badPlain(v, isFlags(name)); bad {
			return f, true
		}
		if isList(name) && !isFlags(name) && strings.Contains(v, " -") {
			return flaw{"has a word that begins with a dash", "a program that CBSD calls would take it for an option"}, true
		}
		if strings.Contains(v, " ") && (evals || cmd.family == qemu || !isList(name) && !cmd.open) {
			return flaw{"contains a space", "CBSD would take what follows for a command, an option or an argument of its own; leave it out"}, true
		}
	}
	return flaw{}, false
}

// templateMark is the character that ends the argument name in the sed scripts
// that fill CBSD's templates (modules/bsdconf.d/cloudinit), "" for those that
// are in none.
func templateMark(name string) string {
	switch {
	case strings.HasPrefix(name, "ci_ip4_addr"), strings.HasPrefix(name, "ci_gw4"), name == "uuid":
		return "#"
	case strings.HasPrefix(name, "ci_"), name == "vpc_name":
		return ":"
	}
	return ""
}

// isList reports whether the argument name holds several words.
func isList(name string) bool {
	switch name {
	case "pkglist", "packages", "exec_start", "exec_stop", "bhyve_flags", "emulator_flags", "ip4_addr", "new_ip4_addr", "interface",
		"jnameserver", "nameserver", "ci_nameserver_address", "ci_nameserver_search", "zvol_opts", "depend", "devs", "hosts", "ips",
		"nodelist", "jexport_exclude", "header_extra", "excludedir", "distribution", "sysrc":
		return true
	}
	return false
}

// publicKey is a line of an authorized_keys file without options.
var publicKey = regexp.MustCompile(`^[a-z0-9@.-]+ AAAA[A-Za-z0-9+/=]+( [A-Za-z0-9@._-]+)?$`)

// isFlags reports whether the argument name holds options for a program, which
// may begin with a dash.
func isFlags(name string) bool {
	switch name {
	case "bhyve_flags", "qemu_flags", "emulator_flags", "exec_start", "exec_stop":
		return true
	}
	return false
}

// leadsUp reports whether the path v leaves a directory by "..".
func leadsUp(v string) bool {
	return slices.Contains(strings.Split(v, "/"), "..")
}

var (
	newName   = regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)
	guestName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,63}$`)
	wildcard  = regexp.MustCompile(`^[A-Za-z0-9_*][A-Za-z0-9_.@:*-]{0,63}$`)
	imageFile = regexp.MustCompile(`^[A-Za-z0-9_.@:+=,/-]+$`)
	argName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)
	verbName  = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
)

// badGuest checks the name of a guest; fresh ones are about to be made.
func badGuest(v string, fresh bool) (flaw, bool) {
	if f, bad := badText(v); bad {
		return f, true
	}
	switch {
	case v == "":
		return flaw{"names no guest", "write its jname"}, true
	case strings.Contains(v, "/"):
		return flaw{"contains a slash", "a guest is named by its jname, not by a path"}, true
	case strings.ContainsAny(v, " ,"):
		return flaw{"names more than one guest", "send a job for each guest, or name them as words, without jname="}, true
	case fresh && !newName.MatchString(v):
		return flaw{"is not a name for a new guest", "1 to 15 lower-case letters and digits, the first a letter"}, true
	case hasField(jailRow, strings.ToLower(v)):
		return flaw{"is the name of a column of CBSD's tables", "CBSD's database would take it for the column itself, and other guests would match; a guest of that name must be renamed on the host"}, true
	case !guestName.MatchString(v) || v == "dir.id":
		return flaw{"is not the name of a guest", "letters, digits and _ . @ : -, at most 64, the first a letter, a digit or _"}, true
	}
	return flaw{}, false
}

// badImage checks the path of an image where other commands name a guest.
func badImage(v string) (flaw, bool) {
	if f, bad := badText(v); bad {
		return f, true
	}
	if !imageFile.MatchString(v) || v[0] == '-' {
		return flaw{"is not the path of an image", "letters, digits and _ . @ : + = , - /, the first no dash"}, true
	}
	if leadsUp(v) {
		return flaw{"leads upwards with ..", "write the path without it"}, true
	}
	return flaw{}, false
}
