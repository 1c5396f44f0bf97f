package beanstalk

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// maxTubes bounds the list of tubes, a line of at most 203 bytes each.
const maxTubes = 64 << 20

// Sweep looks at the oldest job of each tube that nobody watches, tube by tube,
// so that it never holds up a Put for long. beanstalkd hands out jobs of one
// priority in the order of their ids, so where the oldest is young enough the
// others are.
func (c *conn) Sweep(ctx context.Context, match func(tube string) bool, age time.Duration) (removed int, err error) {
	var tubes []string
	if err := c.exchange(ctx, func(w *wire) (err error) {
		tubes, err = w.tubes()
		return err
	}); err != nil {
		return 0, err
	}
	for _, tube := range tubes {
		if !match(tube) {
			continue
		}
		for more := true; more; {
			if err := c.exchange(ctx, func(w *wire) (err error) {
				more, err = w.removeOldest(tube, age)
				return err
			}); err != nil {
				return removed, err
			}
			if more {
				removed++
			}
		}
	}
	return removed, nil
}

// tubes lists the tubes there are.
func (w *wire) tubes() ([]string, error) {
	w.command("list-tubes")
	if err := w.flush(); err != nil {
		return nil, err
	}
	r, err := w.expect(ok, maxTubes)
	if err != nil {
		return nil, err
	}
	if r.body == nil {
		return nil, fmt.Errorf("a list of tubes of %d bytes", r.size)
	}
	var tubes []string
	for line := range strings.Lines(string(r.body)) {
		if name, isItem := strings.CutPrefix(line, "- "); isItem {
			tubes = append(tubes, strings.Trim(strings.TrimSpace(name), `"`))
		}
	}
	return tubes, nil
}

// removeOldest deletes the oldest job of a tube if it is older than age and
// nobody watches the tube.
func (w *wire) removeOldest(tube string, age time.Duration) (removed bool, err error) {
	w.command("stats-tube ", tube)
	w.command("use ", tube)
	w.command("peek-ready")
	w.used = tube
	st, err := w.stats()
	if err != nil {
		return false, err
	}
	if _, err := w.expect(using, 0); err != nil {
		return false, err
	}
	r, err := w.expect(found, -1)
	if err != nil || r.kind == notFound || st.number("current-watching") > 0 {
		return false, err
	}
	job, err := w.job(r.id)
	if err != nil || job["tube"] != tube || job["state"] != "ready" || job.seconds("age") < age {
		return false, err
	}
	return true, w.deleteAll([]uint64{r.id})
}
