package mutations

import "github.com/cbsd/cbsdmq/e2e/judge"

// A mutation is a change of the program that breaks a promise.
type mutation struct {
	name  string
	by    string // the check that must convict it
	edits []edit
	quick bool // also without -all
}

// An edit replaces the only occurrence of a text in a file of the repository.
type edit struct{ file, old, new string }

var table = []mutation{
	{
		name: "a job is acknowledged before it is in the journal", by: judge.Answered, quick: true,
		edits: []edit{{"agent/intake.go", "	if len(arrivals) > 0 && !s.post(ctx,", "	_ = c.Ack(ctx, ds...)\n	if len(arrivals) > 0 && !s.post(ctx,"}},
	},
	{
		name: "a job that could not be written is acknowledged", by: judge.Answered,
		edits: []edit{{"agent/intake.go", "	l.drop(j)\n	a.done(err)", "	l.drop(j)\n	a.done(nil)"}},
	},
	{
		name: "a reply leaves before the result is in the journal", by: judge.OneEnd,
		edits: []edit{{"agent/finish.go", "	failpoint.Hit(failpoint.Finishing)", "	l.s.owe(e.job.row.Seq, e.job.addrs, e.body)\n	failpoint.Hit(failpoint.Finishing)"}},
	},
	{
		name: "what an agent owed is forgotten by the next", by: judge.Answered,
		edits: []edit{{"agent/runs.go", "	for _, o := range owed {", "	for _, o := range owed[:0] {"}},
	},
	{
		name: "a reply that was not confirmed is not sent again", by: judge.Answered,
		edits: []edit{{"agent/outbox.go", "		default:\n			again = append(again, p)", "		default:"}},
	},
	{
		name: "a reply goes to another address", by: judge.Answered,
		edits: []edit{{"agent/arrive.go", "bus.MailboxName(e.Prefix, job.JobID), false", "bus.MailboxName(e.Prefix, job.JobID^1), false"}},
	},
	{
		name: "a repeat from another address is not answered there", by: judge.Answered,
		edits: []edit{{"agent/intake.go", "	if !a.NewAddress {\n		return", "	if true {\n		return"}},
	},
	{
		name: "replies are put although the broker began its ids again", by: judge.Addressee,
		edits: []edit{{"agent/idspace.go", "	if o.checked.Load() == int64(outages) {", "	if true {"}},
	},
	{
		name: "a reply goes to whichever broker is there when it is sent", by: judge.Addressee,
		edits: []edit{{"agent/outbox.go", "o.e.Bus.PutDuring(putCtx, outages, ms...)", "o.e.Bus.Put(putCtx, ms...)"}},
	},
	{
		name: "a repeat is another job", by: judge.Once, quick: true,
		edits: []edit{{"journal/schema.go", "id       TEXT NOT NULL UNIQUE,", "id       TEXT NOT NULL,"}},
	},
	{
		name: "clocks tell whether an original client's job comes again", by: judge.Once,
		edits: []edit{{"agent/arrive.go", "		case last.Seq >= since, now.Durable && d.ID < now.IDBase:", "		case last.Seq >= since && ctx == nil:"}},
	},
	{
		name: "begun jobs are started again by the next agent", by: judge.Once,
		edits: []edit{{"agent/runs.go", "		if row.Begun.IsZero() {\n			if j.waits == 0 {", "		if row.N = 0; true {\n			if j.waits == 0 {"}},
	},
	{
		name: "commands that run are not adopted but called failed", by: judge.Failed,
		edits: []edit{{"agent/runs.go", "		case known:\n			l.event(e)", "		case known:\n			e.Kind = runner.Failed\n			l.event(e)"}},
	},
	{
		name: "no lanes", by: judge.Overlap, quick: true,
		edits: []edit{{"agent/lanes.go", "	behind = make(map[*node]bool, len(n.lanes))", "	n.lanes = nil\n	behind = make(map[*node]bool, len(n.lanes))"}},
	},
	{
		name: "a job holds the lane of its first guest only", by: judge.Overlap,
		edits: []edit{{"agent/intake.go", "	j.node.lanes = a.plan.Lanes", "	j.node.lanes = a.plan.Lanes[:min(1, len(a.plan.Lanes))]"}},
	},
	{
		name: "lanes are not held over a restart", by: judge.Overlap,
		edits: []edit{{"agent/runs.go", "		j.lanes = j.plan.Lanes\n", ""}},
	},
	{
		name: "a guest is free as soon as its command has ended, before the result is written", by: judge.Order,
		edits: []edit{{"agent/lanes.go", "		if p := l.last[lane]; p != nil {\n			behind[p] = true", "		if p := l.last[lane]; p != nil && p.job.phase < concluding && p.waits == 0 {\n			behind[p] = true"}},
	},
	{
		name: "after a restart the youngest job of a guest is the first", by: judge.Order,
		edits: []edit{{"journal/read.go", `plan IS NOT NULL ORDER BY seq"`, `plan IS NOT NULL ORDER BY seq DESC"`}},
	},
	{
		name: "a job overtakes in the journal another whose guest is looked at", by: judge.Order,
		edits: []edit{{"agent/intake.go", "		if n.job.arrival != nil {\n			l.enlist(n.job)", "		if false {\n			l.enlist(n.job)"}},
	},
	{
		name: "the last argument is left out", by: judge.AsAsked,
		edits: []edit{{"agent/begin.go", "path, args := s.cfg.Command, j.plan.Argv\n", "path, args := s.cfg.Command, j.plan.Argv[:len(j.plan.Argv)-1]\n"}},
	},
	{
		name: "the exit status is not looked at", by: judge.Done,
		edits: []edit{{"agent/finish.go", "		code := v.ErrCode\n", "		code := 0\n"}},
	},
	{
		name: "unknown is called done", by: judge.Done, quick: true,
		edits: []edit{{"agent/finish.go", "reply(cbsdmq.Unknown, cbsdmq.ExitUnknown, reason, ", "reply(cbsdmq.Done, 0, reason, "}},
	},
	{
		name: "the exit status is another", by: judge.Failed,
		edits: []edit{{"agent/finish.go", "exit := cbsd.Exit{Code: e.Status,", "exit := cbsd.Exit{Code: e.Status * 2,"}},
	},
	{
		name: "a time limit says cancelled", by: judge.Cancelled,
		edits: []edit{{"agent/keep.go", "l.terminate(j, cbsdmq.Timeout)", "l.terminate(j, cbsdmq.Cancelled)"}},
	},
	{
		name: "the cancel of a job that has not come is forgotten", by: judge.Cancelled,
		edits: []edit{{"agent/control.go", "		l.batch.Tombstone = append(l.batch.Tombstone, id)", ""}},
	},
	{
		name: "a job that was cancelled between its begin and its start is started", by: judge.Cancelled,
		edits: []edit{{"agent/runs.go", "			if j.why == cbsdmq.Cancelled {\n				l.cancelUnbegun(j)\n				continue\n			}\n", ""}},
	},
	{
		name: "the expiry of an accepted job is ignored", by: judge.Refused,
		edits: []edit{{"agent/arrive.go", "= m.ID, m.ID, m.Sender, m.Key, m.Expires", "= m.ID, m.ID, m.Sender, m.Key, time.Time{}"}},
	},
	{
		name: "a command expires while it runs", by: judge.Refused,
		edits: []edit{{"agent/keep.go", "		case begun:\n			l.tickBegun(j, now)", "		case begun:\n			l.tickQueued(j, now)"}},
	},
	{
		name: "the time limit is a fourth of what it is", by: judge.Timeout,
		edits: []edit{{"agent/keep.go", "now.Sub(j.row.Begun) <= limit {", "now.Sub(j.row.Begun) <= limit/4 {"}},
	},
	{
		name: "the time limit begins with the begin in the journal, not with the start", by: judge.Timeout,
		edits: []edit{{"agent/runs.go", "		j.row.Begun = e.At // time_limit is counted from here\n", ""}},
	},
	{
		name: "a start that never reached the runner is not sent again", by: judge.Unknown,
		edits: []edit{{"agent/runs.go", "		case j.key.After(snap.Mark) &&", "		case false && j.key.After(snap.Mark) &&"}},
	},
	{
		name: "a start is sent again before lower numbers are in the journal", by: judge.Unknown,
		edits: []edit{{"agent/runs.go", "	if l.batch.Empty() {\n		l.start(again)", "	if true {\n		l.start(again)"}},
	},
	{
		name: "the runner may forget a run before its end is in the journal", by: judge.Unknown,
		edits: []edit{{"agent/finish.go", "	failpoint.Hit(failpoint.Exited)\n", "	failpoint.Hit(failpoint.Exited)\n	l.ackRun(e.Key)\n"}},
	},
	{
		name: "a start that was refused for now stays begun in the journal", by: judge.Unknown,
		edits: []edit{{"agent/runs.go", "	l.batch.Unbegin = append(l.batch.Unbegin, j.row.Seq)\n", ""}},
	},
	{
		name: "the mark of the runner is not compared with the journal", by: judge.Unknown,
		edits: []edit{{"journal/mark.go", "	if n <= j.meta.N {\n		return nil", "	if true {\n		return nil"}},
	},
	{
		name: "two agents may have the journal", by: judge.Unknown,
		edits: []edit{{"journal/lock.go", "		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)", "		err = nil"}},
	},
	{
		name: "half of the output is kept", by: judge.Whole, quick: true,
		edits: []edit{{"agent/finish.go", "	size = e.Out.Size\n", "	size = (e.Out.Size + 1) / 2\n"}},
	},
	{
		name: "the output is read after the runner may use its file again", by: judge.Whole,
		edits: []edit{{"agent/finish.go", "	f, err := os.Open(e.Out.Path)\n	if err != nil {\n		return nil, 0, nil, []string", "	s.runner.get().Ack(e.Key)\n	f, err := os.Open(e.Out.Path)\n	if err != nil {\n		return nil, 0, nil, []string"}},
	},
	{
		name: "a client takes pieces in the order in which they come", by: judge.Streamed,
		edits: []edit{{"client/watch.go", "	if r.Offset > w.have {\n		if w.ahead == nil {", "	if false {\n		if w.ahead == nil {"}},
	},
	{
		name: "who asks later is not told the outcome", by: judge.Followers,
		edits: []edit{{"agent/finish.go", "	return s.lastReply(row, r, tail, row.OutSize, most)", "	r.Outcome = \"\"\n	return s.lastReply(row, r, tail, row.OutSize, most)"}},
	},
	{
		name: "a refusal is not one", by: judge.Hostile,
		edits: []edit{{"agent/arrive.go", "		plan, err = s.plan(job)", "		plan, _ = s.cfg.CBSD.Plan(job)"}},
	},
	{
		name: "runs are never acknowledged", by: judge.Resources,
		edits: []edit{
			{"agent/loop.go", "_ = r.Ack(acks...)", "_ = r"},
			{"agent/runs.go", "_ = r.Ack(stale...)", "_ = r"},
		},
	},
	{
		name: "a client takes a lost confirmation for one", by: judge.Answered,
		edits: []edit{{"client/submit.go", "		err = c.settle(ctx, b, err)", "		err = nil"}},
	},
}
