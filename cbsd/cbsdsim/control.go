package cbsdsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Config tells the simulator of one workdir how to behave. It is the file
// etc/cbsdsim.json in the workdir, read at each call; without it, or with the
// zero value, everything is as recorded.
type Config struct {
	// ZFS gives guests and disks guids and makes snapshots and the growing of disks work.
	ZFS bool `json:"zfs,omitempty"`
	// Nodes are other nodes of the cluster: their workdirs, by name.
	Nodes map[string]string `json:"nodes,omitempty"`
	// Registers gives bmigrate the bunregister and bregister that 14.1.3a lacks.
	Registers bool `json:"registers,omitempty"`
	// Evaluate makes the value of each known argument be evaluated by a shell,
	// as the real program does, in an empty directory with the variable CANARY.
	Evaluate bool `json:"evaluate,omitempty"`
	// Canary is the value of CANARY; by default WORKDIR/tmp/canary.
	Canary string `json:"canary,omitempty"`
	// Journal is a file to which each command that changes something appends, with
	// one write each,
	//
	//	B <unix nanoseconds> <pid> <job> <command> <guests> <arguments, a JSON array>
	//	E <unix nanoseconds> <pid> <job> <command> <guests> <exit status> <bytes of stdout> <their sum>
	//
	// as it begins and as it ends. The job is the variable CBSDMQ_JOB; what is
	// missing is a dash; the sum is the first 16 digits of SHA-256. A command that
	// was killed has no E line. In between, where another command is at work on a
	// guest,
	//
	//	O <unix nanoseconds> <pid> <job> <command> <guest> <job and pid of the other>
	//
	// which is seen by locks on files beside the journal, so that a command that
	// was killed is at work until it is gone.
	Journal string `json:"journal,omitempty"`
	// JournalReads makes commands that only read keep the journal too.
	JournalReads bool `json:"journal_reads,omitempty"`
	// Commands holds behaviour by "COMMAND GUEST", else COMMAND, else "*".
	Commands map[string]Behaviour `json:"commands,omitempty"`
}

// Behaviour is how a command is told to act, in the order of the fields.
type Behaviour struct {
	// Delay in seconds before anything is done, in ten steps with a line of progress each.
	Delay float64 `json:"delay,omitempty"`
	// Until is a file: nothing is done before it is there. With Trap it is a step
	// that SIGTERM cuts short.
	Until string `json:"until,omitempty"`
	// Trap makes SIGTERM cut short the step at hand and nothing else: many
	// scripts of the real cbsd trap it and go on, to exit status 0.
	Trap bool `json:"trap,omitempty"`
	// Stdout and Stderr are printed as they are.
	Stdout string `json:"stdout,omitempty"`
	Stderr string `json:"stderr,omitempty"`
	// OutputBytes is the size of the text of [WriteText] with Seed, printed on stdout.
	OutputBytes int64  `json:"output_bytes,omitempty"`
	Seed        uint64 `json:"seed,omitempty"`
	// OutputOfJob makes size and seed depend on the job, see [JobText]; OutputBytes
	// is the most.
	OutputOfJob bool `json:"output_of_job,omitempty"`
	// Exit is the exit status, whatever happens. With it set, the command is
	// carried out only if Act is true.
	Exit *int `json:"exit,omitempty"`
	Act  bool `json:"act,omitempty"`
	// Half makes an export, an import, a download or a migration stop half way,
	// with the exit status that the real one has then.
	Half bool `json:"half,omitempty"`
	// Unreachable makes no mirror give a byte.
	Unreachable bool `json:"unreachable,omitempty"`
	// Grow is the time in seconds in which the files of an export, a download and a
	// copied disk grow to their size, in silence.
	Grow float64 `json:"grow,omitempty"`
	// Die makes the process of a started guest end at once: PID 0, exit status 0.
	Die bool `json:"die,omitempty"`
}

// Write makes c the configuration of the workdir dir, in one step.
func (c Config) Write(dir string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding configuration: %w", err)
	}
	if err := workdir(dir).setZFS(c.ZFS); err != nil {
		return fmt.Errorf("writing configuration: %w", err)
	}
	file := workdir(dir).configFile()
	if err := os.WriteFile(file+".new", append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing configuration: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("writing configuration: %w", err)
	}
	return nil
}

func readConfig(wd workdir) (Config, error) {
	var c Config
	data, err := os.ReadFile(wd.configFile())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("reading configuration: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("reading %s: %w", wd.configFile(), err)
	}
	return c, nil
}

func (c Config) behaviour(command, guest string) Behaviour {
	for _, key := range []string{command + " " + guest, command, "*"} {
		if b, ok := c.Commands[key]; ok {
			return b
		}
	}
	return Behaviour{}
}

func (c Config) canary(wd workdir) string {
	if c.Canary != "" {
		return c.Canary
	}
	return wd.path("tmp", "canary")
}

// prelude is what b asks for before the command acts.
func (c *call) prelude(b Behaviour) error {
	cut := make(chan os.Signal, 1)
	if b.Trap && (b.Delay > 0 || b.Until != "") {
		signal.Notify(cut, syscall.SIGTERM)
		defer signal.Stop(cut)
	}
	if b.Delay > 0 {
		const steps = 10
		pause := time.Duration(b.Delay * float64(time.Second) / steps)
		for i := 1; i <= steps; i++ {
			select {
			case <-time.After(pause):
			case <-cut:
				_, _ = io.WriteString(c.errw, "Terminated\n")
				b.Until = "" // whatever is left to wait for
			}
			c.say("Progress: %d%%", 100*i/steps)
		}
	}
	for b.Until != "" {
		if _, err := os.Stat(b.Until); err == nil {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-cut:
			_, _ = io.WriteString(c.errw, "Terminated\n")
			b.Until = ""
		}
	}
	if _, err := io.WriteString(c.out, b.Stdout); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	if _, err := io.WriteString(c.errw, b.Stderr); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	if b.OutputOfJob {
		b.OutputBytes, b.Seed = JobText(c.getenv("CBSDMQ_JOB"), b.OutputBytes)
	}
	if b.OutputBytes > 0 {
		return WriteText(c.out, b.OutputBytes, b.Seed)
	}
	return nil
}

// JobText is how much a job prints with Behaviour.OutputOfJob, and the seed of
// its text. Most print little, some as much as they may.
func JobText(job string, most int64) (bytes int64, seed uint64) {
	h := fnv.New64a()
	h.Write([]byte(job))
	seed = h.Sum64()
	r := rand.New(rand.NewPCG(seed, 1))
	return r.Int64N(most>>r.IntN(16) + 1), seed
}

// WriteText writes n bytes of text to w: lines of 79 letters and digits that
// depend on seed alone. The last line may be cut.
func WriteText(w io.Writer, n int64, seed uint64) error {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	r := rand.NewPCG(seed, 0)
	block := make([]byte, 80*512)
	for n > 0 {
		for line := block; len(line) > 0; line = line[80:] {
			for i := 0; i < 80; i += 10 {
				bits := r.Uint64()
				for j := i; j < i+10; j++ {
					line[j] = letters[bits&63]
					bits >>= 6
				}
			}
			line[79] = '\n'
		}
		part := block[:min(n, int64(len(block)))]
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		n -= int64(len(part))
	}
	return nil
}
