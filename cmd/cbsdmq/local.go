package main

import (
	"errors"
	"os"
	"time"

	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/journal"
)

// jobsWait is how long the agent is asked where its journal lies on this host,
// so that it can be read without it.
const jobsWait = 3 * time.Second

// askOrRead asks the agent of a pool; where that or the broker is away, and the
// journal is on this host, it reads that.
func askOrRead[T any](g *globals, pool config.Found, ask func(client.Options) ([]T, error), read func(journal.Reader) ([]T, error)) ([]T, error) {
	local := pool.Config.Journal
	if _, err := os.Stat(local); err != nil {
		local = ""
	}
	o := client.Options{Log: g.log()}
	if local != "" {
		o.ConnectTimeout, o.RequestTimeout, o.Log = jobsWait, jobsWait, nil
	}
	list, err := ask(o)
	if local == "" || !away(err) {
		return list, err
	}
	warn(g.stderr, "%v; this is from the journal %s", err, local)
	db, fromJournal := journal.OpenReader(local)
	if fromJournal == nil {
		defer db.Close()
		list, fromJournal = read(journal.NewReader(db, local))
	}
	if fromJournal != nil {
		return nil, errors.Join(err, fromJournal)
	}
	return list, nil
}
