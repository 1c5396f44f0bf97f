package cbsdsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// journaled runs act between the two lines of the ground truth.
func (c *call) journaled(reads bool, act func() error) error {
	if c.conf.Journal == "" || reads && !c.conf.JournalReads {
		return act()
	}
	guests := c.guestArguments()
	args, err := json.Marshal(c.argv)
	if err != nil {
		return fmt.Errorf("keeping the journal: %w", err)
	}
	named := strings.Join(guests, ",")
	if named == "" {
		named = "-"
	}
	if err := c.note("B", named, string(args)); err != nil {
		return err
	}
	if !reads {
		locks, err := c.lockGuests(guests)
		defer func() {
			for _, l := range locks {
				l.Close()
			}
		}()
		if err != nil {
			return err
		}
	}
	out := &summed{w: c.out, sum: sha256.New()}
	c.out = out
	err = act()
	code := 0
	if err != nil {
		code = 1
		if e, ok := errors.AsType[exitCode](err); ok {
			code = int(e)
		}
	}
	return errors.Join(err, c.note("E", named, fmt.Sprintf("%d %d %s", code, out.n, hex.EncodeToString(out.sum.Sum(nil)[:8]))))
}

// summed counts what is written to w.
type summed struct {
	w   io.Writer
	n   int64
	sum hash.Hash
}

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	s.sum.Write(p[:n])
	return n, err
}

// guestArguments are the guests that a command names.
func (c *call) guestArguments() (guests []string) {
	for _, name := range []string{"jname", "old", "new", "new_jname"} {
		guests = append(guests, strings.Fields(c.args.get(name))...)
	}
	if len(guests) == 0 {
		guests = strings.Fields(c.guestArgument())
	}
	slices.Sort(guests)
	return slices.DeleteFunc(slices.Compact(guests), func(g string) bool { return g == "-" || strings.ContainsAny(g, "/,*") })
}

// lockGuests notes the guests at which another command is at work. The locks of
// the others end with the process.
func (c *call) lockGuests(guests []string) (locks []*os.File, err error) {
	for _, guest := range guests {
		f, err := os.OpenFile(c.conf.Journal+"."+guest+".lock", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return locks, fmt.Errorf("locking a guest: %w", err)
		}
		locks = append(locks, f)
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			who, _ := io.ReadAll(f)
			if err := c.note("O", guest, strings.TrimSpace(string(who))); err != nil {
				return locks, err
			}
			continue
		}
		if err := f.Truncate(0); err != nil {
			return locks, fmt.Errorf("locking a guest: %w", err)
		}
		if _, err := fmt.Fprintf(f, "%s %d\n", c.job(), os.Getpid()); err != nil {
			return locks, fmt.Errorf("locking a guest: %w", err)
		}
	}
	return locks, nil
}

func (c *call) job() string {
	if job := c.getenv("CBSDMQ_JOB"); job != "" {
		return job
	}
	return "-"
}

func (c *call) note(kind, guests, rest string) error {
	f, err := os.OpenFile(c.conf.Journal, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("keeping the journal: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %d %d %s %s %s %s\n", kind, time.Now().UnixNano(), os.Getpid(), c.job(), c.name, guests, rest)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keeping the journal: %w", err)
	}
	return nil
}
