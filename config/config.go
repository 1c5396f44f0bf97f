// Package config reads the configuration file of a pool: the original
// programs' file with additions. example.json describes every key.
//
// A file that an original program started with starts ours too: unknown keys
// are warnings, keys match without regard to case, and the flags of the
// original fill what the file leaves empty.
package config

import (
	"cmp"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// Places outside the pools.
const (
	DefaultCBSD  = "/usr/local/bin/cbsd"
	DefaultPools = "/usr/local/etc/cbsdmq"
	DefaultState = "/var/db/cbsdmq"
)

// Values of Config.Boot.
const (
	BootNone  = "none"
	BootStart = "start"
)

// Config is one pool as its agent serves it and its clients find it.
type Config struct {
	// The original's keys.
	CBSDEnv   string `json:"cbsdenv"`   // the pool's working directory
	CBSDColor bool   `json:"cbsdcolor"` // let cbsd colour its output
	Broker    Names  `json:"broker"`    // sections in use; several serve one pool on several buses
	LogFile   string `json:"logfile"`

	Log string `json:"log"` // "file" for LogFile, or "syslog"

	Pool string `json:"pool"` // name; default the base name of CBSDEnv
	CBSD string `json:"cbsd"` // path of the cbsd command

	Workers       int   `json:"workers"`        // commands that change something, at one time
	Readers       int   `json:"readers"`        // commands that only read, at one time
	Backlog       int   `json:"backlog"`        // accepted jobs that have not ended; above it the broker keeps them
	Allow         Allow `json:"allow"`          // commands that may run
	AllowWildcard bool  `json:"allow_wildcard"` // take * in a jname
	StrictArgs    bool  `json:"strict_args"`    // refuse arguments that cbsd does not name

	Senders       string `json:"senders"`        // agent: file or directory with the public keys of those who sign jobs, and what each may do
	RequireSigned bool   `json:"require_signed"` // agent: refuse jobs and requests that are not signed
	SignKey       string `json:"sign_key"`       // client: file with the secret key that it signs with

	OutputMax     Size     `json:"output_max"`     // of a command's stdout and stderr on disk, each
	TimeLimit     Duration `json:"time_limit"`     // of a command; 0 = none
	KillGrace     Duration `json:"kill_grace"`     // between SIGTERM and SIGKILL
	ForeignWait   Duration `json:"foreign_wait"`   // for commands on the guest that are not ours
	LegacyExpires Duration `json:"legacy_expires"` // a job without expires that has not begun after this is refused; 0 = never
	ReplyTTL      Duration `json:"reply_ttl"`      // how long an unread reply is kept

	MetricsListen string `json:"metrics_listen"` // host:port of /metrics, /-/healthy and /-/ready; "" = none

	Journal     string   `json:"journal"`      // file; default within the pool
	JournalMode string   `json:"journal_mode"` // "wal" or "delete"
	JournalMax  Size     `json:"journal_max"`  // results are dropped early to stay below it
	Retention   Duration `json:"retention"`    // how long results are kept
	IDMemory    Duration `json:"id_memory"`    // how long ids are known; never shorter than Retention

	Boot string `json:"boot"` // "start": after a boot of the host the agent starts what has astart; "none"

	StateDir string `json:"state_dir"` // what this host remembers about its pools
	RunDir   string `json:"run_dir"`   // output of running commands, the runner's socket

	// Sections are the brokers by name. A name is a kind of broker, alone or
	// with a suffix after a hyphen: "beanstalkd", "beanstalkd-old".
	Sections map[string]bus.Config `json:"-"`

	File string `json:"-"` // where it was read

	given    map[string]position // keys of the file, as Field of an error names them
	noBroker bool                // Broker is not the file's
}

// Default is a configuration with nothing but defaults.
func Default() *Config {
	return &Config{
		LogFile:       "/dev/stdout",
		Log:           "file",
		CBSD:          DefaultCBSD,
		Workers:       2 * runtime.NumCPU(),
		Readers:       4,
		Backlog:       1000,
		OutputMax:     256 << 20,
		TimeLimit:     Duration(24 * time.Hour),
		KillGrace:     Duration(30 * time.Second),
		ForeignWait:   Duration(time.Minute),
		ReplyTTL:      Duration(24 * time.Hour),
		JournalMode:   "wal",
		JournalMax:    1 << 30,
		Retention:     Duration(7 * 24 * time.Hour),
		IDMemory:      Duration(30 * 24 * time.Hour),
		Boot:          BootNone,
		StateDir:      DefaultState,
		Sections:      make(map[string]bus.Config),
		given:         make(map[string]position),
		LegacyExpires: 0,
	}
}

// ApplyFlags takes the flags of the original agent, "" where one was not
// given: what the file says wins.
func (c *Config) ApplyFlags(cbsdenv, broker string) {
	if c.CBSDEnv == "" {
		c.CBSDEnv = cbsdenv
	}
	if c.noBroker && broker != "" {
		c.Broker, c.noBroker = Names{broker}, false
	}
	c.complete()
}

// Buses returns the sections in use, by name, in the order of Broker.
func (c *Config) Buses() []Section {
	var out []Section
	for _, name := range c.Broker {
		if s, ok := c.Sections[strings.ToLower(name)]; ok {
			out = append(out, Section{Name: strings.ToLower(name), Kind: Kind(name), Config: s})
		}
	}
	return out
}

// A Section is one broker of a configuration.
type Section struct {
	Name string // as Broker names it
	Kind string // which driver, one of Kinds
	bus.Config
}

// Kinds are the brokers that are built in.
func Kinds() []string {
	return []string{
		"beanstalkd",
		"nats",
		"rabbitmq",
		"kafka",
		"activemq",
		"zeromq",
	}
}

// Kind is the kind of broker that the section name is for. It need not be one
// of Kinds.
func Kind(section string) string {
	kind, _, _ := strings.Cut(strings.ToLower(section), "-")
	return kind
}

// complete fills in what follows from other keys.
func (c *Config) complete() {
	if c.Pool == "" {
		c.Pool = poolOf(c.CBSDEnv)
	}
	d := Default()
	if c.Workers == 0 {
		c.Workers = d.Workers
	}
	c.Log = cmp.Or(c.Log, d.Log)
	c.LogFile = cmp.Or(c.LogFile, d.LogFile)
	c.CBSD = cmp.Or(c.CBSD, d.CBSD)
	c.Boot = cmp.Or(c.Boot, d.Boot)
	c.StateDir = cmp.Or(c.StateDir, d.StateDir)
	c.JournalMode = cmp.Or(c.JournalMode, d.JournalMode)
	if c.Journal == "" && c.CBSDEnv != "" {
		c.Journal = filepath.Join(c.CBSDEnv, "var/db/cbsdmq/journal.sqlite")
	}
	if _, ok := c.given["id_memory"]; !ok {
		c.IDMemory = max(c.IDMemory, c.Retention)
	}
	if c.RunDir == "" {
		c.RunDir = filepath.Join(c.StateDir, "run")
	}
	if len(c.Broker) == 0 {
		c.noBroker = true
		c.Broker = Names{Kinds()[0]}
		if len(c.Sections) == 1 {
			for name := range c.Sections {
				c.Broker = Names{name}
			}
		}
	}
	for name, s := range c.Sections {
		c.Sections[name] = c.completeSection(Kind(name), s)
	}
}

func (c *Config) completeSection(kind string, s bus.Config) bus.Config {
	const timeout = 5
	for _, d := range []*bus.Seconds{&s.ReconnectTimeout, &s.ReserveTimeout, &s.PublishTimeout} {
		if *d == 0 {
			*d = timeout
		}
	}
	if s.Tube == "" && c.Pool != "" {
		s.Tube = "cbsd_" + c.Pool
	}
	if s.ReplyTubePrefix == "" && s.Tube != "" {
		s.ReplyTubePrefix = s.Tube + "_result_id"
	}
	if kind == "nats" && s.URI == Embedded {
		if s.EmbeddedDir == "" {
			s.EmbeddedDir = filepath.Join(c.StateDir, "nats")
		}
		if s.EmbeddedListen == "" {
			s.EmbeddedListen = "127.0.0.1:4222"
		}
	}
	return s
}

// Embedded is the uri of a broker in this process.
const Embedded = "embedded"

var notInPool = regexp.MustCompile(`[^a-z0-9_-]+`)

// poolOf makes a pool's name of the base name of its working directory, ""
// where that has none.
func poolOf(cbsdenv string) string {
	if cbsdenv == "" {
		return ""
	}
	name := strings.ToLower(filepath.Base(filepath.Clean(cbsdenv)))
	name = strings.Trim(notInPool.ReplaceAllString(name, "_"), "_")
	name = name[:min(len(name), 32)]
	if !cbsdmq.ValidPool(name) {
		return ""
	}
	return name
}

func builtIn(kind string) bool { return slices.Contains(Kinds(), kind) }
