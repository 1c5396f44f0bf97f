package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// An exitError ends the program with its status. Without err there is nothing
// left to say.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exit ends the program with status in silence; nil for 0.
func exit(status int) error {
	if status == cbsdmq.ExitOK {
		return nil
	}
	return &exitError{status: status}
}

// A usageError is about arguments that were not understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// asAgent gives a bad configuration the exit status of the original agent.
func asAgent(err error) error {
	if cbsdmq.CodeOf(err) == cbsdmq.CodeBadConfig {
		return &exitError{status: cbsdmq.ExitFailure, err: err}
	}
	return err
}

// fail says what err has to say and returns the exit status for it.
func (g *globals) fail(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		if e.err != nil {
			printError(g.stderr, e.err)
		}
		return e.status
	}
	printError(g.stderr, err)
	return cbsdmq.ExitStatus(err)
}

// printError prints err and its hints, nothing for nil.
func printError(w io.Writer, err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		warn(w, "%s", strings.TrimRight(line, "\n"))
	}
	for _, hint := range hints(err, nil) {
		fmt.Fprintf(w, "hint: %s\n", plain(hint))
	}
}

// hints appends the hints of all Errors in err's tree to list, each once.
func hints(err error, list []string) []string {
	switch e := err.(type) {
	case nil:
		return list
	case *cbsdmq.Error:
		if e.Hint != "" && !slices.Contains(list, e.Hint) {
			list = append(list, e.Hint)
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return hints(e.Unwrap(), list)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			list = hints(err, list)
		}
	}
	return list
}

// warn prints a line that is neither a result nor the reason for the end.
func warn(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "cbsdmq: %s\n", plain(fmt.Sprintf(format, args...)))
}
