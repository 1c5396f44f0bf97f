package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/proc"
)

// rcFiles are read by FreeBSD's rc scripts in this order.
var rcFiles = []string{"/etc/defaults/rc.conf", "/etc/rc.conf", "/etc/rc.conf.local", "/etc/rc.conf.d/cbsdd"}

// rcValue is what files of rc.conf's kind say about a variable, "" where they say
// nothing.
func rcValue(files []string, name string) (value string) {
	line := regexp.MustCompile(`(?m)^[ \t]*` + name + `=["']?([^"'\n#]*)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			value = strings.TrimSpace(m[1])
		}
	}
	return value
}

// cbsddServes says why CBSD's own daemon starts the guests of a workdir, "" where
// it does not.
func cbsddServes(files []string, workdir string) string {
	if text, err := os.ReadFile(filepath.Join(workdir, "var/run/cbsdd.pid")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			if _, err := proc.StartTime(pid); err == nil {
				return fmt.Sprintf("a cbsdd serves %s, pid %d", workdir, pid)
			}
		}
	}
	switch strings.ToLower(rcValue(files, "cbsdd_enable")) {
	case "yes", "true", "on", "1":
		if main := rcValue(files, "cbsd_workdir"); main != "" && sameDir(main, workdir) {
			return "cbsdd of rc.conf serves " + workdir
		}
	}
	return ""
}

func sameDir(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// autostart is what the agent of a pool asks after a boot; nil where it has
// nothing to start.
func autostart(c *config.Config, pool *cbsd.Pool, log *slog.Logger) func(context.Context) ([]cbsd.BootGuest, error) {
	if c.Boot != config.BootStart {
		return nil
	}
	return func(ctx context.Context) ([]cbsd.BootGuest, error) {
		if why := cbsddServes(rcFiles, c.CBSDEnv); why != "" {
			log.Warn("the guests are left to cbsdd", "pool", c.Pool, "reason", why, "hint", bootHint)
			return nil, nil
		}
		return pool.BootOrder(ctx)
	}
}

const (
	bootHint = `set "boot": "none", or take the pool from cbsdd: it would start each guest a second time`

	// stopTime is how long cbsd waits for a guest that does not stop by itself.
	stopTime = 30 * time.Second
)

// stopEstimate is how long a shutdown can take where no guest stops by itself.
func stopEstimate(guests []cbsd.BootGuest, workers int) (d time.Duration) {
	inGroup := make(map[int]int)
	for _, g := range guests {
		if g.AStart || g.Running {
			inGroup[g.Group]++
		}
	}
	for _, n := range inGroup {
		d += time.Duration((n+workers-1)/workers) * stopTime
	}
	return d
}

// checkBoot says what keeps a pool with "boot": "start" from coming up and going
// down as it should.
func (c *checker) checkBoot(ctx context.Context, cfg *config.Config, pool *cbsd.Pool, rc []string) {
	if cfg.Boot != config.BootStart {
		return
	}
	if why := cbsddServes(rc, cfg.CBSDEnv); why != "" {
		c.say(cbsd.Warning, "boot", why+": the agent leaves starting to it", bootHint)
	}
	guests, err := pool.BootOrder(ctx)
	if err != nil {
		c.bad("boot", err)
		return
	}
	n := 0
	for _, g := range guests {
		if g.AStart {
			n++
		}
	}
	c.say(cbsd.OK, "boot", fmt.Sprintf("%d guests are started after a boot", n), "")
	need := stopEstimate(guests, cfg.Workers)
	limit, err := strconv.Atoi(rcValue(rc, "rcshutdown_timeout"))
	if err == nil && need+shutdownRest > time.Duration(limit)*time.Second {
		seconds := int((need + shutdownRest).Seconds())
		c.say(cbsd.Warning, "boot", fmt.Sprintf("to stop all guests can take %s, and a shutdown has %d s", need, limit),
			fmt.Sprintf("sysrc rcshutdown_timeout=%d; sysctl kern.init_shutdown_timeout=%d, and the same line in /etc/sysctl.conf", seconds, seconds+30))
	}
}
