package cbsdsim

import (
	"bufio"
	"fmt"
	"strings"
)

// pick is what a command does that needs a guest and got no argument: on a
// terminal it offers guests with that status and waits for an answer, which it
// takes as a cancellation; otherwise it complains with status 1. Without a
// complaint it just ends.
func (c *call) pick(subject string, f family, status, complaint string) error {
	c.say("%s", subject)
	guests, err := c.guestsOf(f, "")
	if err != nil {
		return err
	}
	var offered []guest
	for _, g := range guests {
		if status == "" || c.statusWord(g) == status {
			offered = append(offered, g)
		}
	}
	switch {
	case len(offered) > 0 && !c.noninteractive():
	case complaint == "":
		return nil
	default:
		return c.fail("%s", complaint)
	}
	bold, green, plain := "\x1b[1m", "\x1b[0;32m", "\x1b[0m"
	if c.getenv("NOCOLOR") != "" {
		bold, green, plain = "", "", ""
	}
	c.say(" %s0 .. CANCEL%s", bold, plain)
	for _, g := range offered {
		c.say(" %s1 .. %s%s on local%s", bold, green, g.jname, plain)
	}
	c.say("")
	fmt.Fprint(c.out, "Enter name or ID or '0' to Cancel: ")
	if _, err := bufio.NewReader(c.stdin).ReadString('\n'); err != nil {
		return c.fail("%s", strings.TrimSpace(complaint))
	}
	c.say("Cancel pressed")
	return nil
}
