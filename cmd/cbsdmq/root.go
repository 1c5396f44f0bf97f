package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

// globals are what every subcommand has: where it prints, and the flags that
// stand before any subcommand.
//
// Manners: stdout has what was asked for and nothing else, so that it can be
// piped. On stderr a failure is "cbsdmq: what went wrong", followed by lines
// "hint: what can be done"; warnings and progress begin with "cbsdmq: " too.
// Messages have no capital at the beginning and no full stop at the end.
type globals struct {
	stdout, stderr io.Writer

	pools  string // --pools
	format string // -o
	key    string // --sign-key

	told sync.Map // pools whose agents were said to be waited for

	began bool // the subcommand was reached: what fails before is bad usage
}

func newRootCommand(g *globals) *cobra.Command {
	var asked bool
	root := &cobra.Command{
		Use:   "cbsdmq",
		Short: "Run CBSD commands over a bus, and lose none",
		Long: `Run CBSD commands over a bus, and lose none.

A client puts a command on the queue of a pool; the agent that serves the pool
writes it down, runs it with cbsd, and answers.

Exit status: that of the command; 2 bad usage or refused, 69 the broker cannot be
reached, 75 gave up waiting or detached, 78 bad configuration, 124 timed out,
125 the end cannot be known, 126 cbsd cannot be executed, 127 it is missing, 130 cancelled, 128+n ended by
signal n, 1 anything else.`,
		Example: `  cbsdmq demo
  cbsdmq pools
  cbsdmq run pool1 jls
  cbsdmq run bstart vm1
  cbsdmq jobs pool1`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if g.format != "text" && g.format != "json" {
				return usage("--output: %q is neither text nor json", g.format)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if asked {
				return g.printVersion()
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&asked, "version", false, "print the version, as the subcommand version does")
	root.SetOut(g.stdout)
	root.SetErr(g.stderr)
	f := root.PersistentFlags()
	f.StringVar(&g.pools, "pools", "", "`directory` of the pools' configuration files; several separated by a colon (environment "+config.PoolsEnv+")")
	f.StringVarP(&g.format, "output", "o", "text", "`format` of what is reported: text, or json with one object a line")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))

	f.StringVar(&g.key, "sign-key", "", "`file` with the secret key that signs what is sent (environment "+signKeyEnv+")")

	groups := []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"jobs", "Jobs:", []*cobra.Command{
			newRunCommand(g), newEachCommand(g), newSubmitCommand(g), newSpoolCommand(g), newFollowCommand(g), newOutputCommand(g),
			newCancelCommand(g), newJobsCommand(g), newLogCommand(g), newWhyCommand(g), newRetryCommand(g), newResolveCommand(g), newHeldCommand(g),
			newHandBackCommand(g),
		}},
		{"pools", "Pools:", []*cobra.Command{newPoolsCommand(g), newGuestsCommand(g), newFindCommand(g), newVNCCommand(g),
			newPauseCommand(g), newResumeCommand(g), newInitCommand(g), newWarmCommand(g), newTransferCommand(g), newCheckCommand(g), newShutdownCommand(g), newClientConfigCommand(g)}},
		{"serve", "Serving:", []*cobra.Command{
			newAgentCommand(g), newRunnerCommand(g), newBrokerCommand(g), newCurveKeyCommand(g), newKeygenCommand(g),
		}},
		{"other", "Other:", []*cobra.Command{newDemoCommand(g), newBrokersCommand(g), newManCommand(g), newVersionCommand(g), newToolCommand(g)}},
	}
	for _, group := range groups {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, cmd := range group.commands {
			cmd.GroupID = group.id
			g.mark(cmd)
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		strictHelp(help)
	}
	return root
}

// strictHelp makes help of a command that there is not a mistake.
func strictHelp(help *cobra.Command) {
	run := help.Run
	help.Run, help.RunE = nil, func(cmd *cobra.Command, args []string) error {
		if _, _, err := cmd.Root().Find(args); err != nil {
			return &usageError{err}
		}
		run(cmd, args)
		return nil
	}
}

// mark makes cmd note that it was reached. One that only has others is not
// satisfied with a name that none of them has.
func (g *globals) mark(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			g.began = true
			return run(cmd, args)
		}
	}
	if check := cmd.Args; check != nil && !cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err != nil && strings.HasPrefix(err.Error(), "unknown command ") { // there are none to know
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			return err
		}
	}
	if !cmd.Runnable() {
		cmd.DisableFlagsInUseLine = true
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("unknown command %q for %q", args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
	for _, sub := range cmd.Commands() {
		g.mark(sub)
	}
}

// execute runs the subcommand that args name and returns the exit status.
func (g *globals) execute(args []string) int {
	root := newRootCommand(g)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	_, misused := errors.AsType[*usageError](err)
	if err == nil || g.began && !misused {
		return g.fail(err)
	}
	printError(g.stderr, err)
	fmt.Fprintf(g.stderr, "hint: %s --help\n", cmd.CommandPath())
	return cbsdmq.ExitRefused
}

// places is where to look for pools.
func (g *globals) places() config.Places {
	return config.PoolPlaces(g.pools, os.Getenv(config.PoolsEnv))
}

// json reports whether reports are to be JSON.
func (g *globals) json() bool { return g.format == "json" }

// log is for what libraries have to say to a person at a terminal.
func (g *globals) log() *slog.Logger { return slog.New(plainHandler{w: g.stderr}) }
