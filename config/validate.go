package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// Validate reports everything that keeps the configuration from being used, by
// a client or an agent, each as a *cbsdmq.Error of CodeBadConfig, joined. It
// looks at the text only, not at the disk or the network.
func (c *Config) Validate() error {
	v := validator{c: c}
	v.check("pool", c.Pool == "" || cbsdmq.ValidPool(c.Pool), "not a pool's name").
		hint("a name has 1 to 32 of a-z, 0-9, _ and -")
	v.absolute("cbsdenv", c.CBSDEnv)
	v.absolute("cbsd", c.CBSD)
	v.absolute("journal", c.Journal)
	v.absolute("state_dir", c.StateDir)
	v.absolute("run_dir", c.RunDir)
	v.absolute("senders", c.Senders)
	v.absolute("sign_key", c.SignKey)
	v.check("require_signed", !c.RequireSigned || c.Senders != "", "true without senders: nobody could send a job").
		hint(`"senders": "/usr/local/etc/cbsdmq/senders" names those who may; see docs/SECURITY.md`)

	v.between("workers", int64(c.Workers), 1, 10_000)
	v.between("readers", int64(c.Readers), 1, 10_000)
	v.between("backlog", int64(c.Backlog), 1, 1_000_000)
	for _, command := range c.Allow {
		v.check("allow", commandName.MatchString(command), "%q is not a command's name, nor command:argument", command).
			hint("name each command alone, without arguments and wildcards")
	}

	v.check("output_max", c.OutputMax >= 128<<10, "%s is too little", c.OutputMax).
		hint("at least 128k: the first 64 KiB and the end are kept")
	v.atLeast("time_limit", c.TimeLimit, 0)
	v.atLeast("kill_grace", c.KillGrace, 0)
	v.atLeast("foreign_wait", c.ForeignWait, 0)
	v.atLeast("legacy_expires", c.LegacyExpires, 0)
	v.atLeast("reply_ttl", c.ReplyTTL, minute)
	v.check("log", c.Log == "file" || c.Log == "syslog", "neither file nor syslog").
		hint(`"syslog", or "file" for the one that logfile names`)
	v.check("journal_mode", c.JournalMode == "wal" || c.JournalMode == "delete", "neither wal nor delete").
		hint(`"delete" is for a pool on NFS, "wal" for all others`)
	v.check("boot", c.Boot == BootNone || c.Boot == BootStart, "neither none nor start").
		hint(`"start" where no cbsdd starts the guests of this pool after a boot`)
	v.check("journal_max", c.JournalMax >= 16<<20, "%s is too little", c.JournalMax).hint("at least 16m")
	v.atLeast("retention", c.Retention, minute)
	v.check("id_memory", c.IDMemory >= c.Retention, "%s is shorter than the retention of results (%s)", c.IDMemory, c.Retention).
		hint("an id that is forgotten before its result could be run again")
	if c.MetricsListen != "" {
		_, port, err := net.SplitHostPort(c.MetricsListen)
		n, e := strconv.ParseUint(port, 10, 16)
		v.check("metrics_listen", err == nil && e == nil, "not an address").hint(`host:port, such as "127.0.0.1:9114"`)
		v.check("metrics_listen", e != nil || n != 0, "a port is missing").hint(`such as "127.0.0.1:9114"`)
	}
	v.buses()
	return errors.Join(v.errs...)
}

// ValidateAgent is Validate, and asks for what only an agent needs.
func (c *Config) ValidateAgent() error {
	v := validator{c: c}
	v.check("cbsdenv", c.CBSDEnv != "", "missing").
		hint(`the working directory of the pool, as in "cbsdenv": "/pool1" or -cbsdenv /pool1`)
	v.check("pool", c.CBSDEnv == "" || c.Pool != "", "no name can be made of cbsdenv").hint(`add "pool": "name"`)
	return errors.Join(append(v.errs, c.Validate())...)
}

var (
	commandName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_-]+)?$`) // or command:argument
	tubeName    = regexp.MustCompile(`^[A-Za-z0-9_.:][A-Za-z0-9_.:-]*$`)
)

// The longest name of a tube is a prefix with a number or a ULID.
const (
	tubeMax   = 200 - len(cbsdmq.ControlSuffix)
	prefixMax = 200 - 1 - 26
)

const minute = Duration(time.Minute)

type validator struct {
	c    *Config
	errs []error
}

// hinted lets a check be followed by its hint.
type hinted struct{ e *cbsdmq.Error }

func (h hinted) hint(text string) {
	if h.e != nil {
		h.e.Hint = text
	}
}

func (v *validator) check(field string, ok bool, format string, args ...any) hinted {
	if ok {
		return hinted{}
	}
	e := badConfig(field, format, args...)
	place := v.c.given[field].in(v.c.File)
	if place == "" {
		v.errs = append(v.errs, e)
	} else {
		v.errs = append(v.errs, fmt.Errorf("%s: %w", place, e))
	}
	return hinted{e}
}

func (v *validator) absolute(field, path string) {
	v.check(field, path == "" || filepath.IsAbs(path), "not an absolute path").hint("it begins with /")
}

func (v *validator) between(field string, n, low, high int64) {
	v.check(field, low <= n && n <= high, "%d is not from %d to %d", n, low, high)
}

func (v *validator) atLeast(field string, d, low Duration) {
	v.check(field, d >= low, "%s is less than %s", d, low)
}

func (v *validator) seconds(field string, s bus.Seconds) {
	v.check(field, 0 < s && s <= 86400, "not a number of seconds up to a day")
}

func (v *validator) buses() {
	v.check("broker", len(v.c.Broker) > 0, "missing").hint("name one of the sections: " + v.sections())
	tubes := make(map[string]string)
	for i, name := range v.c.Broker {
		kind := Kind(name)
		s, there := v.c.Sections[strings.ToLower(name)]
		switch {
		case slices.Contains(v.c.Broker[:i], name):
			v.check("broker", false, "%q comes twice", name)
		case !builtIn(kind):
			v.check("broker", false, "%q is not a broker that this program knows", name).
				hint("built in: " + strings.Join(Kinds(), ", "))
		case !there:
			v.check("broker", false, "there is no section %q", name).hint(v.missingHint(name))
		default:
			v.section(strings.ToLower(name), kind, s)
			at := s.URI + " " + s.Tube
			v.check(name+".tube", tubes[at] == "", "section %s has the same uri and tube", tubes[at])
			tubes[at] = name
		}
	}
}

func (v *validator) sections() string {
	var names []string
	for name := range v.c.Sections {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return `the file has none; add "beanstalkd": {"uri": "127.0.0.1:11300", "tube": "cbsd_pool1"}`
	}
	return strings.Join(names, ", ")
}

func (v *validator) missingHint(name string) string {
	return fmt.Sprintf(`add "%s": {"uri": ...}, or name one of these: %s`, strings.ToLower(name), v.sections())
}

func (v *validator) section(name, kind string, s bus.Config) {
	v.check(name+".uri", s.URI != "", "missing").hint(`an address such as "127.0.0.1:11300"`)
	v.check(name+".uri", !strings.ContainsFunc(s.URI, func(r rune) bool { return r <= ' ' || r == 0x7f }), "holds a space or a control character")
	v.check(name+".tube", s.Tube != "", "missing").hint(`the name of the pool's queue, usually "cbsd_" and the pool`)
	v.check(name+".tube", s.Tube == "" || tubeName.MatchString(s.Tube) && len(s.Tube) <= tubeMax, "not a tube's name").
		hint(fmt.Sprintf("at most %d of letters, digits and _ . : -, the first one not -", tubeMax))
	p := s.ReplyTubePrefix
	v.check(name+".reply_tube_prefix", p == "" || tubeName.MatchString(p) && len(p) <= prefixMax, "not the beginning of a tube's name").
		hint(fmt.Sprintf("at most %d of letters, digits and _ . : -, the first one not -", prefixMax))
	v.seconds(name+".reconnect_timeout", s.ReconnectTimeout)
	v.seconds(name+".reserve_timeout", s.ReserveTimeout)
	v.seconds(name+".publish_timeout", s.PublishTimeout)
	v.check(name+".key", (s.Cert == "") == (s.Key == ""), "cert and key go together")
	v.check(name+".embedded_listen", s.EmbeddedListen == "" || s.URI == Embedded, `without "uri": "embedded"`)
	v.check(name+".uri", s.URI != Embedded || kind == "nats", "%s is not built in as a server", kind).hint(`"nats" can be embedded`)
	v.check(name+".replicas", s.Replicas >= 0 && s.Replicas <= 9, "%d is not a number of copies", s.Replicas).
		hint("3 for a cluster of three servers; leave it out for a single one")
	v.check(name+".password_file", s.PasswordFile == "" || s.Password == "", "password and password_file: only one of them can hold the password").
		hint("take the password out of this file, others may read it")
	v.check(name+".password_file", s.PasswordFile == "" || s.Token == "" && s.Creds == "", "beside token or creds").
		hint("without a user the file holds the token")
	v.check(name+".password_file", s.PasswordFile == "" || !userIn(s.URI), "beside a user in the uri").hint("name the user with the key user")
	v.check(name+".password_file", s.PasswordFile == "" || s.URI != Embedded, "the embedded broker makes its own password")
	v.absolute(name+".password_file", s.PasswordFile)
	if kind == "zeromq" {
		v.check(name+".password_file", s.PasswordFile == "", "zeromq knows no passwords here").hint("curve_key is what clients are known by")
	}
	if kind == "beanstalkd" {
		v.check(name+".tls", !s.TLS && s.CA == "" && s.Cert == "", "beanstalkd knows no TLS").hint("put a tunnel such as WireGuard below it")
		v.check(name+".password", s.User == "" && s.Password == "" && s.PasswordFile == "" && s.Token == "" && s.Creds == "", "beanstalkd knows no passwords").
			hint("let it listen on an address that only the hosts reach")
	}
}

// OpenMetrics reports whether others than this host may read the metrics.
func (c *Config) OpenMetrics() bool { return c.MetricsListen != "" && !loopback(c.MetricsListen) }

// secret reports whether the file holds a password.
func (c *Config) secret() bool {
	for _, s := range c.Sections {
		if s.Password != "" || s.Token != "" {
			return true
		}
		if userIn(s.URI) {
			return true
		}
	}
	return false
}

// userIn reports whether one of the addresses holds a user, with or without a
// password.
func userIn(uri string) bool {
	for part := range strings.SplitSeq(uri, ",") {
		if u, err := url.Parse(strings.TrimSpace(part)); err == nil && u.User != nil {
			return true
		}
	}
	return false
}
