package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// release is set by packagers: -ldflags "-X main.release=1.2.3".
var release string

// version says which build this is.
var version = versionOf(release)

func versionOf(release string) string {
	built := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		built = info.Main.Version
	}
	return cmp.Or(release, strings.Trim(built, "()"), "devel")
}

func newVersionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  cbsdmq version\n  cbsdmq version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.printVersion()
		},
	}
}

// printVersion is for the subcommand and for the flag --version.
func (g *globals) printVersion() error {
	if g.json() {
		return json.NewEncoder(g.stdout).Encode(struct {
			Version  string `json:"version"`
			Go       string `json:"go"`
			Platform string `json:"platform"`
		}{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
	}
	_, err := fmt.Fprintf(g.stdout, "cbsdmq %s, %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
