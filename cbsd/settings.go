package cbsd

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// askedNames lists the settings that plan names.
func askedNames(plan Plan) []string {
	if plan.Verb != Set && plan.Verb != Disk {
		return nil
	}
	var names []string
	for _, a := range plan.Argv[1:] {
		if name, _, ok := strings.Cut(a, "="); ok && isSetting(name) {
			names = append(names, name)
		}
	}
	return names
}

// isSetting reports whether an argument of a set command is kept under its name.
func isSetting(name string) bool {
	switch name {
	case "jname", "mode", "quiet", "inter", "emulator", "autorestart", "jconf", "header", "display",
		"dsk_path", "dsk_controller", "imgtype", "zvol_opts":
		return false
	}
	return true
}

func judgeSet(plan Plan, name string, was, is GuestState) finding {
	return judgeValues(plan, name, was.Settings, is.Settings)
}

// judgeValues compares each value asked for with what the settings say now. A
// setting that is kept elsewhere is not judged. A value that changed to
// something else was put in order by CBSD.
func judgeValues(plan Plan, guest string, was, is map[string]string) finding {
	f := finding{none: true, met: true, had: true}
	for _, name := range askedNames(plan) {
		now, ok := is[name]
		if !ok {
			continue
		}
		f.none = false
		asked, _ := plan.Arg(name)
		same := was[name] == now || Redact(name) && was[name] == seal(now)
		f.had = f.had && same
		if same && !sameSetting(name, asked, now) {
			f.met = false
			f.why = fmt.Sprintf("%s of %s is not what was asked for", name, guest)
			if !Redact(name) {
				f.why = fmt.Sprintf("%s of %s is still %s", name, guest, strconv.Quote(now))
			}
			return f
		}
	}
	return f
}

// seal stands for a secret in a stored snapshot: enough to see that it changed,
// too little to find it.
func seal(v string) string {
	sum := sha256.Sum256([]byte(v))
	return hex.EncodeToString(sum[:4])
}

// sameSetting reports whether CBSD may keep asked as kept.
func sameSetting(name, asked, kept string) bool {
	asked = strings.Join(strings.Fields(strings.ReplaceAll(asked, "%", " ")), " ") // bset: % is a space
	kept = strings.Join(strings.Fields(kept), " ")
	switch {
	case asked == kept, isUnset(asked) && isUnset(kept):
		return true
	case isTrue(asked) && isTrue(kept), isFalse(asked) && isFalse(kept):
		return true
	}
	switch name {
	case "vm_ram", "dsk_size", "imgsize":
		a, ok1 := parseSize(asked)
		k, ok2 := parseSize(kept)
		if n, err := strconv.ParseInt(asked, 10, 64); err == nil && name == "vm_ram" && n<<20 == k {
			return true // a bare number is in MB
		}
		return ok1 && ok2 && a == k
	case "arch", "ver", "dsk_zfs_guid":
		return asked == "native" || asked == "auto" // found out by CBSD
	case "ip4_addr":
		host, _, _ := strings.Cut(kept, "/")
		return asked == host || strings.HasPrefix(strings.ToUpper(asked), "DHCP")
	}
	return false
}

func isUnset(v string) bool { return v == "" || v == "0" || v == "(null)" }

func isTrue(v string) bool {
	return slices.Contains([]string{"1", "true", "yes", "on"}, strings.ToLower(v))
}

func isFalse(v string) bool {
	return slices.Contains([]string{"0", "false", "no", "off"}, strings.ToLower(v))
}

// parseSize reads a size as CBSD writes it: 512m, 4g, a number of bytes.
func parseSize(s string) (int64, bool) {
	unit := int64(1)
	if s != "" {
		switch s[len(s)-1] | 0x20 {
		case 'b':
			s = s[:len(s)-1]
		case 'k':
			unit, s = 1<<10, s[:len(s)-1]
		case 'm':
			unit, s = 1<<20, s[:len(s)-1]
		case 'g':
			unit, s = 1<<30, s[:len(s)-1]
		case 't':
			unit, s = 1<<40, s[:len(s)-1]
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n >= 0 && n <= 1<<20*float64(1<<40)/float64(unit)) { // nor NaN
		return 0, false
	}
	return int64(n * float64(unit)), true
}
