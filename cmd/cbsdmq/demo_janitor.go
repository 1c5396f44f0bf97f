package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// janitorArg is the first argument of the demo's janitor: a process that clears
// away when the demo could not, as after kill -9.
const janitorArg = "demo-janitor"

// demoEnv is in the environment of all that a demo starts: its directory.
const demoEnv = "CBSDMQ_DEMO"

// A janitor learns from the demo over a pipe what there is to clear away. The
// end of the pipe is the end of the demo, whoever ended it.
type janitor struct {
	pipe io.WriteCloser
	cmd  *exec.Cmd
}

func (s *stage) startJanitor() error {
	cmd := exec.Command(s.exe, janitorArg, s.dir)
	cmd.Args[0] = "cbsdmq"
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends us does not end it
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the janitor: %w", err)
	}
	s.janitor = &janitor{pipe: pipe, cmd: cmd}
	if s.keep {
		s.janitor.say("keep")
	}
	return nil
}

func (j *janitor) say(line string) {
	_, _ = io.WriteString(j.pipe, line+"\n") // without a janitor there is none to tell
}

// dismiss ends the janitor; all is cleared away.
func (j *janitor) dismiss() {
	j.say("done")
	j.pipe.Close()
	_ = j.cmd.Wait() // it has nothing to do
}

// runJanitor is the janitor of the demo in dir.
func runJanitor(dir string, in io.Reader, stderr io.Writer) int {
	var workdirs []string
	keep := false
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		switch what, arg, _ := strings.Cut(lines.Text(), " "); what {
		case "done":
			return 0
		case "keep":
			keep = true
		case "sweep":
			workdirs = append(workdirs, arg)
		}
	}
	err := sweep(demoEnv, dir)
	for _, workdir := range workdirs {
		if e := sweep("workdir", workdir); err == nil {
			err = e
		}
	}
	if !keep {
		if e := os.RemoveAll(dir); err == nil {
			err = e
		}
	}
	if err != nil {
		warn(stderr, "clearing away a demo that was killed: %v", err)
		return 1
	}
	return 0
}
