package main

import (
	"errors"
	"strings"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

// queues has the tubes of several pools, and the file that names each.
type queues map[string]string

// add takes in the tubes of a pool. No two pools may read one: each would take
// jobs that are for the other, and nothing in a job of an original client says
// which it is for.
func (q queues) add(c *config.Config, file string) error {
	var errs []error
	for _, s := range c.Buses() {
		at := strings.Join([]string{s.Kind, s.URI, s.Tube}, " ")
		if s.URI == config.Embedded {
			at += " " + s.EmbeddedDir
		}
		if other, taken := q[at]; taken && other != file {
			errs = append(errs, cbsdmq.Errorf(cbsdmq.CodeBadConfig, s.Name+".tube", "%s and %s both read %s", other, file, s.Tube).
				WithHint(`each pool needs a tube of its own, usually "cbsd_" and the name of the pool: else it takes the other's jobs`))
			continue
		}
		q[at] = file
	}
	return errors.Join(errs...)
}
