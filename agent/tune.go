package agent

import (
	"os"
	"runtime/debug"

	"github.com/cbsd/cbsdmq/internal/calm"
)

// Tune makes the garbage collector of this process wait until the heap is
// three times what is in use, if the environment has no GOGC. What an agent
// keeps is a few megabytes, and the default would have it collected dozens of
// times a second under load. More than three times is not faster, and has the
// agent grow for thousands of jobs before it is first collected.
//
// It also calms the runtime's monitor: see internal/calm.
func Tune() {
	calm.Monitor()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
}
