package cbsdsim

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// InitBehaviour is how initenv is told to act, in the file WORKDIR.initenv.json
// beside the workdir, which has no configuration yet.
type InitBehaviour struct {
	Loop  bool   `json:"loop,omitempty"`  // ask the same for ever
	Half  bool   `json:"half,omitempty"`  // stop at stage 5 with status 0, as the script of 007ddb53 does
	Touch string `json:"touch,omitempty"` // a file of the host to add a line to
	Exit  int    `json:"exit,omitempty"`
}

// initenv is the script sudoexec/initenv with a file of settings. It ends with
// status 0 whatever happened.
func initenv(wd workdir, args []string, out io.Writer) int {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	var b InitBehaviour
	if text, err := os.ReadFile(string(wd) + ".initenv.json"); err == nil {
		if err := json.Unmarshal(text, &b); err != nil {
			say("cbsdsim: %v", err)
			return 1
		}
	}
	var settings map[string]string
	if len(args) > 0 {
		if text, err := os.ReadFile(args[0]); err == nil {
			settings = readShellVariables(string(text))
		}
	}
	say("-------[CBSD v.%s]-------", Version)
	say(">>> Installing or upgrading")
	say("[Stage 1: account & dir hier]")
	if b.Loop {
		for {
			say("Please set nodename:")
			time.Sleep(10 * time.Millisecond)
		}
	}
	if b.Touch != "" {
		f, err := os.OpenFile(b.Touch, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			say("%v", err)
			return 1
		}
		_, _ = io.WriteString(f, "cbsd_workdir=\""+string(wd)+"\"\n") // seen by its reader
		f.Close()
	}
	say("[Stage 2: build tools]")
	say("[Stage 3: local settings]")
	say("[Stage 5: refreshing inventory]")
	if b.Half {
		if err := os.MkdirAll(filepath.Join(string(wd), "etc", "defaults"), 0o755); err != nil {
			say("%v", err)
		}
		return 0
	}
	if !wd.alive() {
		if err := Init(string(wd), settings["nodename"]); err != nil {
			say("%v", err)
			return 0
		}
	}
	if err := wd.setZFS(settings["zfsfeat"] == "1"); err != nil {
		say("%v", err)
	}
	say("[Stage 9: cleanup]")
	say(">>> Done")
	return b.Exit
}
