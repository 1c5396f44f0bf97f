package cbsdmq

import (
	"errors"
	"fmt"
)

// A Code says what kind of failure an Error is, for programs. Codes are stable.
type Code string

// The codes. Each belongs to one exit status, see ExitStatus.
const (
	CodeRefused     Code = "refused"     // the job breaks a rule; nothing was run
	CodeBadConfig   Code = "bad_config"  // the configuration cannot be used
	CodeNotFound    Code = "not_found"   // no such job, guest or pool
	CodeUnreachable Code = "unreachable" // the broker or the agent does not answer
	CodeGaveUp      Code = "gave_up"     // still going on, but the caller waits no longer
	CodeHeld        Code = "held"        // somebody else holds what is needed
	CodeUnavailable Code = "unavailable" // the agent cannot do it now: disk full, journal read-only
	CodeInternal    Code = "internal"
)

// Exit statuses beside those of the command itself (sysexits(3) where one fits).
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitRefused     = 2   // also bad usage
	ExitUnreachable = 69  // EX_UNAVAILABLE: broker cannot be reached
	ExitGaveUp      = 75  // EX_TEMPFAIL: gave up waiting, or detached
	ExitBadConfig   = 78  // EX_CONFIG
	ExitTimeout     = 124 // as timeout(1)
	ExitUnknown     = 125 // the end cannot be known
	ExitCannotRun   = 126 // cbsd is there and cannot be executed, as sh(1)
	ExitNotFound    = 127 // cbsd is missing, as sh(1)
	ExitCancelled   = 130 // as a shell after SIGINT
	ExitSignal      = 128 // plus the signal that killed the command
)

// An Error is a failure with everything a person needs to act on it.
type Error struct {
	Code  Code
	Field string // the part of the input that is wrong, such as "CommandArgs.jname"; may be empty
	Hint  string // what a person can do; may be empty
	Err   error  // what went wrong, without Field and Hint
}

// Errorf makes an Error of code about field, with the message of fmt.Errorf.
func Errorf(code Code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Err: fmt.Errorf(format, args...)}
}

// WithHint returns e with its hint set.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Error names the field, then the failure. The hint is not part of it.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return e.Field + ": " + e.Err.Error()
}

// Unwrap gives the failure without its field.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first Error in err's chain, CodeInternal when
// there is none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// HintOf returns the hint of the first Error in err's chain, or "".
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}

// ExitStatus is the exit status of a program that ends with err.
func ExitStatus(err error) int {
	switch CodeOf(err) {
	case "":
		return ExitOK
	case CodeRefused:
		return ExitRefused
	case CodeBadConfig:
		return ExitBadConfig
	case CodeUnreachable:
		return ExitUnreachable
	case CodeGaveUp:
		return ExitGaveUp
	default:
		return ExitFailure
	}
}
