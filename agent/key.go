package agent

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
)

// checkKey refuses a job under a key that its sender has given to other work: it
// would be answered with what became of that.
func (s *Server) checkKey(ctx context.Context, row *journal.Job, plan cbsd.Plan) (refused, err error) {
	if row.Key == "" {
		return nil, nil
	}
	had, err := s.cfg.Journal.Reader().Keyed(ctx, row.Signer, row.Sender, row.Key)
	if err != nil || had == nil || had.ID == row.ID || sameWork(had, plan) {
		return nil, err
	}
	id := cbsdmq.PrintedID(s.cfg.Pool, had.ID)
	return cbsdmq.Errorf(cbsdmq.CodeRefused, "cbsdmq.key", "%s is the key of other work: %s, %s", row.Key, had.Command, id).
		WithHint("give this one a key of its own; `cbsdmq jobs %s` shows the other", id), nil
}

// sameWork reports whether a job asked for what plan does: in any order, and
// without a look at what is secret. Of a job whose arguments are not kept any more
// command and guest are compared.
func sameWork(had *journal.Job, plan cbsd.Plan) bool {
	if had.Command != printable(plan.Command) || had.Guest != plan.Guest {
		return false
	}
	var was cbsd.Plan
	if len(had.Plan) == 0 || json.Unmarshal(had.Plan, &was) != nil {
		return true
	}
	return slices.Equal(asked(was), asked(plan))
}

// asked is what the sender of a plan's job has written.
func asked(plan cbsd.Plan) []string {
	plan, _ = withoutSecrets(plan)
	argv := slices.DeleteFunc(slices.Clone(plan.Argv), func(a string) bool { return a == "inter=0" }) // it may be ours
	slices.Sort(argv)
	return argv
}
