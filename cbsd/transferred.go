package cbsd

import (
	"context"
	"fmt"
	"strings"
)

// judgeTransfer judges by both environments.
func judgeTransfer(plan Plan, before, now Snapshot) finding {
	name := plan.Guest
	to, _ := plan.Arg("to")
	was, here := before.Guests[name], now.Guests[name]
	there, read := now.Remote[name]
	again := "transfer it again, which goes on; or go back, if it is not in " + to + ": cbsd jregister jname=" + name
	switch {
	case !read:
		return finding{why: now.RemoteError, hint: again}
	case here.Exists && there.Exists:
		return finding{why: fmt.Sprintf("%s is here and in %s", name, to), hint: again}
	case here.Exists:
		return finding{why: fmt.Sprintf("%s was not moved", name)}
	case there.Exists && here.Unregistered:
		return finding{why: fmt.Sprintf("%s is in %s, and not all of it is gone here", name, to), hint: again}
	case there.Exists:
		return finding{met: true, had: !was.Exists && !was.Unregistered}
	case here.Unregistered:
		return finding{why: fmt.Sprintf("%s is unregistered here, and not in %s yet", name, to), hint: again}
	}
	return finding{why: strings.TrimSpace(missing(name, here))}
}

// readTransferred reads the environment that a guest is moved to.
func (p *Pool) readTransferred(ctx context.Context, plan Plan) (GuestState, error) {
	to, _ := plan.Arg("to")
	other := &Pool{cfg: Config{Workdir: to}, store: newStore(), scan: p.scan}
	defer other.Close()
	return other.state(ctx, plan.Guest, Other, nil)
}
