package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// stats is an answer to one of the stats commands: a YAML dictionary of
// scalars.
type stats map[string]string

// maxStats is many times what beanstalkd says.
const maxStats = 64 << 10

// stats sends what is in w.out and reads an answer that is stats; nil when
// what was asked for is not there.
func (w *wire) stats() (stats, error) {
	if err := w.flush(); err != nil {
		return nil, err
	}
	r, err := w.expect(ok, maxStats)
	if err != nil || r.kind == notFound {
		return nil, err
	}
	if r.body == nil {
		return nil, fmt.Errorf("%d bytes of statistics", r.size)
	}
	return parseStats(r.body), nil
}

func parseStats(yaml []byte) stats {
	st := stats{}
	for line := range strings.Lines(string(yaml)) {
		if key, value, found := strings.Cut(line, ": "); found {
			st[key] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return st
}

// job returns stats-job, nil if there is no such job.
func (w *wire) job(id uint64) (stats, error) {
	w.commandID("stats-job ", id, "")
	return w.stats()
}

func (st stats) number(key string) uint64 {
	n, _ := strconv.ParseUint(st[key], 10, 64)
	return n
}

func (st stats) seconds(key string) time.Duration {
	const most = uint64(math.MaxInt64 / time.Second)
	return time.Duration(min(st.number(key), most)) * time.Second
}

func (st stats) binlog() bool { return st.number("binlog-current-index") > 0 }

// maxJob is the largest job that the server takes and still has after a
// restart: reading a binlog it counts the line end into the body and refuses
// what it has accepted.
func (st stats) maxJob() (int, error) {
	n, err := strconv.Atoi(st["max-job-size"])
	if st.binlog() {
		n -= len(crlf)
	}
	if err != nil || n <= 0 {
		return 0, errors.New("the server does not say its max-job-size")
	}
	return n, nil
}

const advice = "without a binlog, queued jobs and unread replies are lost when beanstalkd restarts: start it with `-b DIR -f 50`" +
	` (FreeBSD: sysrc beanstalkd_flags="-b /var/db/beanstalkd -f 50")`

func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	if !validTube(t.Name) {
		return bus.Info{}, badTube(t.Name)
	}
	var info bus.Info
	err := c.exchange(ctx, func(w *wire) error {
		w.command("stats-tube ", t.Name)
		tube, err := w.stats()
		if err != nil {
			return err
		}
		info.Ready, info.Consumers = int(tube.number("current-jobs-ready")), int(tube.number("current-watching"))
		st, base, err := w.idBase()
		if err != nil {
			return err
		}
		info.Server, info.Instance, info.IDBase = "beanstalkd "+st["version"], st["id"], base
		info.Durable, info.MaxBody = st.binlog(), w.limit
		if !info.Durable {
			info.Advice = advice
		}
		return nil
	})
	return info, err
}

const probeTube = "cbsdmq_probe"

// idBase finds out the first id that this incarnation of the server gave, by
// the id of a job that is put, delayed so that nobody gets it, and deleted
// again: each job that was put since the start took an id and was counted in
// total-jobs, jobs read from a binlog were not [beanstalkd 1.12]. Jobs put by
// others between the counts make the result too small, so that is tried again;
// each put that a client broke off made it too large by one for ever.
func (w *wire) idBase() (st stats, base uint64, err error) {
	for range 4 {
		w.command("stats")
		w.command("use ", probeTube)
		w.command("put 4294967295 60 1 0")
		w.command()
		w.command("stats")
		w.used = probeTube
		before, err := w.stats()
		if err != nil {
			return nil, 0, err
		}
		if _, err := w.expect(using, 0); err != nil {
			return nil, 0, err
		}
		probe, err := w.expect(inserted, 0)
		if err != nil {
			return nil, 0, err
		}
		if st, err = w.stats(); err != nil {
			return nil, 0, err
		}
		if err := w.deleteAll([]uint64{probe.id}); err != nil {
			return nil, 0, err
		}
		total := st.number("total-jobs")
		base = max(base, 1)
		if total < probe.id {
			base = max(base, probe.id-total+1)
		}
		if total == before.number("total-jobs")+1 {
			break
		}
	}
	return st, base, nil
}
