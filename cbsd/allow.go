package cbsd

import (
	"strings"

	"github.com/cbsd/cbsdmq"
)

// An allowance is the agent's key allow, taken apart:
//
//	nil           every command that needs no terminal and runs no other programs
//	"all"         the same, so that more can be added to it
//	"jexec"       this command, even if it needs a terminal or runs other programs
//	"bset:jconf"  this argument of this command, though it names a file that CBSD
//	              runs; and the command itself
//
// A list without "all" permits what it names and nothing else; an empty one
// permits nothing.
type allowance struct {
	only bool // a list was given
	all  bool
	set  map[string]bool
}

func parseAllow(list []string) (allowance, error) {
	a := allowance{only: list != nil, set: make(map[string]bool)}
	for _, entry := range list {
		cmd, arg, both := strings.Cut(entry, ":")
		switch {
		case entry == "all":
			a.all = true
		case !verbName.MatchString(cmd), both && !argName.MatchString(arg):
			return a, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "allow", "%q is neither a command nor command:argument", entry).
				WithHint(`write "all", a command such as "jexec", or "bset:jconf"`)
		default:
			a.set[cmd], a.set[entry] = true, true
		}
	}
	return a, nil
}

func (a *allowance) names(cmd string) bool { return a.set[cmd] }

func (a *allowance) argument(cmd, arg string) bool { return a.set[cmd+":"+arg] }
