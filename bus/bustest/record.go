package bustest

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/cbsd/cbsdmq/bus/brokers"
)

// test is one promise of the contract.
type test struct {
	name string
	says string // the promise, in words for the table of brokers
	test func(*testing.T, Server)
}

// A record is what the suite sees of a broker.
type record struct {
	table  brokers.Table // of one broker
	broker brokers.Broker
	how    map[string]string // Server.How
	ran    bool              // all groups of tests
}

// answer is written by a test that says why it skips itself.
type answer struct {
	brokers.Answer
	ran    bool
	logins []string
}

// run runs a test as a subtest and notes what it says. It reports whether the
// server can be used further.
func (r *record) run(t *testing.T, c test, s Server) bool {
	a := &answer{Answer: brokers.Answer{Kept: brokers.Yes}}
	s.answer = a
	ok := t.Run(c.name, func(t *testing.T) {
		a.ran = true
		leavesNothing(t, s)
		c.test(t, s)
	})
	if !ok {
		a.Answer = brokers.Answer{Kept: brokers.Failed}
	}
	if how := r.how[c.name]; how != "" && a.Kept == brokers.Yes {
		a.How = how
	}
	r.table.Promises = append(r.table.Promises, brokers.Promise{Name: c.name, Text: c.says, Brokerless: s.queues == nil && s.Driver.Caps().Brokerless})
	if a.ran {
		r.broker.Answers[c.name] = a.Answer
		r.broker.Logins = append(r.broker.Logins, a.logins...)
	}
	return ok
}

// process is what a server may say of itself that is another one in each run.
var process = regexp.MustCompile(`pid [0-9]+, `)

// begin notes what broker the suite runs against.
func (r *record) begin(t *testing.T, s Server) {
	t.Helper()
	if r.broker.Answers != nil {
		return
	}
	info, err := dial(t, s.Driver).Inspect(within(t, limit), queue(t))
	if err != nil {
		t.Fatalf("inspecting: %v", err)
	}
	r.how = s.How
	r.broker = brokers.Broker{
		Name: s.Name, Kind: s.Driver.Caps().Name, Server: process.ReplaceAllString(info.Server, ""), MaxBody: info.MaxBody,
		Answers: map[string]brokers.Answer{},
	}
}

// write writes what was seen to the directory that brokers.Variable names. What was
// seen before is kept where -run left a test out now.
func (r *record) write(t *testing.T) {
	if r.ran && !t.Failed() {
		for name := range r.how {
			if !slices.ContainsFunc(r.table.Promises, func(p brokers.Promise) bool { return p.Name == name }) {
				t.Errorf("How explains %s, which is no test of the suite", name)
			}
		}
	}
	dir := os.Getenv(brokers.Variable)
	if dir == "" || r.broker.Name == "" || testing.Short() {
		return
	}
	r.table.Brokers = []brokers.Broker{r.broker}
	if err := r.table.Record(dir); err != nil {
		t.Errorf("writing what was seen: %v", err)
	}
}

// cannot ends a test of what the broker, or its driver, says that it cannot.
func (s Server) cannot(t testing.TB, why string) {
	t.Helper()
	s.answer.Answer = brokers.Answer{Kept: brokers.No, How: why}
	t.Skip(why)
}

// needs ends a test that has not what it needs.
func (s Server) needs(t testing.TB, has bool) {
	t.Helper()
	if !has {
		s.answer.Answer = brokers.Answer{Kept: brokers.Untested}
		t.Skip("the test cannot do this to the server")
	}
}

// spared ends a test of what nobody needs of this broker.
func (s Server) spared(t testing.TB, why string) {
	t.Helper()
	s.answer.Answer = brokers.Answer{Kept: brokers.Spared, How: why}
	t.Skip(why)
}

// explain adds to a yes.
func (s Server) explain(how string) { s.answer.How = how }

// durable ends a test of what is confirmed where the broker keeps nothing, or is
// not configured to.
func (s Server) durable(t testing.TB) {
	t.Helper()
	s.needs(t, s.Kill != nil && s.Start != nil)
	if !s.Driver.Caps().Durable {
		s.cannot(t, "it keeps nothing over its restart")
	}
	info, err := dial(t, s.Driver).Inspect(within(t, limit), queue(t))
	if err != nil {
		t.Fatalf("inspecting: %v", err)
	}
	if !info.Durable {
		s.cannot(t, info.Advice)
	}
	s.explain(info.Advice)
}
