package agent

import (
	"os"
	"runtime/debug"
)

// TuneGC makes the garbage collector of this process wait until the heap is
// five times what is in use, if the environment has no GOGC. What an agent
// keeps is a few megabytes, and the default would have it collected dozens of
// times a second under load, a tenth of the agent's work.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
