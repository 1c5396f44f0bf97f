package judge

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// A Verdict says for each promise how often it was looked at and where it was
// broken.
type Verdict struct {
	Checks []Check `json:"checks"`
}

// A Check is one promise. The names are those of the constants.
type Check struct {
	Name       string      `json:"name"`
	Promise    string      `json:"promise"`
	Looked     int         `json:"looked"`            // how many things were looked at
	Excused    int         `json:"excused,omitempty"` // of them: an event let pass what is not promised then
	Violations []Violation `json:"violations,omitempty"`
}

// A Violation is one broken promise.
type Violation struct {
	Job      string   `json:"job"`
	What     string   `json:"what"`
	Evidence []string `json:"evidence"`
}

// The checks.
const (
	Answered  = "answered"
	OneEnd    = "one end"
	Addressee = "addressee"
	Once      = "begun once"
	Overlap   = "no overlap"
	Order     = "order"
	AsAsked   = "as asked"
	Done      = "done"
	Failed    = "failed"
	Cancelled = "cancelled"
	Refused   = "refused"
	Timeout   = "timeout"
	Unknown   = "unknown"
	Whole     = "output"
	Streamed  = "stream"
	Followers = "followers"
	Hostile   = "hostile"
	Resources = "resources"
	Truth     = "truth"
)

// promises are the checks in the order of the table.
var promises = []struct {
	name, promise string
	check         func(*trial, *Check)
}{
	{Answered, "a confirmed job is answered at each of its addresses", answered},
	{OneEnd, "all its final replies are equal", oneEnd},
	{Addressee, "no reply reaches a stranger", addressee},
	{Once, "a change begins at most once", once},
	{Overlap, "one guest, one change at a time", overlap},
	{Order, "a sender's jobs for a guest begin in the order of submit", order},
	{AsAsked, "what ran is what was asked for", asAsked},
	{Done, "done: the command ended well", done},
	{Failed, "failed: it did not, with its exit status", failed},
	{Cancelled, "cancelled: somebody asked for it, in time", cancelled},
	{Refused, "refused: with a reason, and nothing ran", refused},
	{Timeout, "timeout: it ran for so long", timedOut},
	{Unknown, "unknown: only where it cannot be known", unknown},
	{Whole, "the output is what was printed, to the byte", whole},
	{Streamed, "streamed pieces join to it", streamed},
	{Followers, "who comes late or comes twice is told the same", followers},
	{Hostile, "nothing hostile ran", hostile},
	{Resources, "resources are back where they began", resources},
	{Truth, "the truth can be read", truth},
}

// Judge compares the parts of h with each other.
func Judge(h *History, r Rules) Verdict {
	t := newTrial(h, r)
	var v Verdict
	for _, p := range promises {
		c := Check{Name: p.name, Promise: p.promise}
		p.check(t, &c)
		v.Checks = append(v.Checks, c)
	}
	return v
}

// Convicted is how many violations there are.
func (v Verdict) Convicted() (n int) {
	for _, c := range v.Checks {
		n += len(c.Violations)
	}
	return n
}

// Check is the check of that name.
func (v Verdict) Check(name string) Check {
	for _, c := range v.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{Name: name}
}

// Add adds the counts and violations of another verdict.
func (v *Verdict) Add(other Verdict) {
	if len(v.Checks) == 0 {
		v.Checks = append(v.Checks, other.Checks...)
		return
	}
	for i, c := range other.Checks {
		v.Checks[i].Looked += c.Looked
		v.Checks[i].Excused += c.Excused
		v.Checks[i].Violations = append(v.Checks[i].Violations, c.Violations...)
	}
}

// Write writes the table, and below it each violation with its evidence, at
// most limit of each check.
func (v Verdict) Write(w io.Writer, limit int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tLOOKED AT\tEXCUSED\tBROKEN\tPROMISE")
	for _, c := range v.Checks {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\n", c.Name, c.Looked, c.Excused, len(c.Violations), c.Promise)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing the verdict: %w", err)
	}
	var b strings.Builder
	for _, c := range v.Checks {
		for i, bad := range c.Violations {
			if i == limit {
				fmt.Fprintf(&b, "\n%s: and %d more\n", c.Name, len(c.Violations)-limit)
				break
			}
			fmt.Fprintf(&b, "\n%s: %s: %s\n", c.Name, bad.Job, bad.What)
			for _, line := range bad.Evidence {
				fmt.Fprintf(&b, "    %s\n", line)
			}
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the verdict: %w", err)
	}
	return nil
}

func (c *Check) broken(job string, evidence []string, format string, args ...any) {
	c.Violations = append(c.Violations, Violation{job, fmt.Sprintf(format, args...), evidence})
}
