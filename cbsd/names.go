package cbsd

import (
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq/internal/edits"
)

// commandNames lists the catalogue, sorted.
func commandNames() []string {
	var names []string
	for name, cmd := range catalogue() {
		if cmd.does != terminal {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// nearest returns the name of the list that name was most likely meant to be,
// or "", and whether it is so near that nothing else can be meant: two edits,
// and fewer than half of its letters.
func nearest(name string, list []string) (near string, close bool) {
	best := 4
	for _, n := range list {
		if d := edits.Distance(strings.ToLower(name), n); d < best && 2*d < len(n) {
			near, best = n, d
		}
	}
	return near, best <= 2
}

func nearestHint(name string, list []string, otherwise string) string {
	if near, _ := nearest(name, list); near != "" {
		return "did you mean " + near + "?"
	}
	return otherwise
}

// isUserSetting reports whether name is one of the families of cloud-init
// arguments that end in the name of a user.
func isUserSetting(name string) bool {
	for _, prefix := range []string{
		"ci_user_pw_", "ci_user_pubkey_", "ci_user_gecos_", "ci_user_home_",
		"ci_user_shell_", "ci_user_member_groups_", "ci_user_group_", "ci_user_sudo_",
	} {
		if strings.HasPrefix(name, prefix) && len(name) > len(prefix) {
			return true
		}
	}
	return false
}

// isInternal reports whether name is, or looks like, a variable that CBSD's
// scripts use themselves. Create commands write unknown arguments into a file
// that they source: workdir=/pool2 would act on another pool.
func isInternal(name string) bool {
	if strings.ToLower(name) != name || name[0] == '_' || strings.Contains(name, "-") {
		return true
	}
	for _, suffix := range []string{"dir", "conf", "conf_tmp", "tmp", "cmd", "wrapper", "init", "backend", "subr"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	const variables = "workdir cbsd_workdir subr dialog tools mdtools jfs nodes initenv system strings inventory nodedescr nodename nodeip " +
		"greeting product myversion cbsduser platform zfsfeat hammerfeat debug trap jail_list sqldelimer merge_me pause_after_err cloud_api"
	return hasField(variables, name)
}

// Hidden stands in logs and listings for the value of an argument that is a secret.
const Hidden = "***"

// Redact reports whether the value of the argument name is a secret that must
// not appear in logs and listings, nor be kept when its job has ended. It goes by
// the name alone: public keys (ci_user_pubkey) are none.
func Redact(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "pw", "epw", "pass", "passwd", "key", "cbsdkeyfile", "rootkeyfile", "zfs_encryption":
		return true
	}
	for _, part := range []string{"pw", "password", "passwd", "secret", "token", "private_key", "apikey"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return strings.HasSuffix(name, "_key") || strings.HasSuffix(name, "_pw") || strings.HasSuffix(name, "_pass")
}
