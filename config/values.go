package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Duration is written "30d", "24h", "1h30m", "90s" or as a number of seconds.
type Duration time.Duration

const day = 24 * time.Hour

// UnmarshalJSON reads either form.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		return nil
	case float64:
		if !(math.Abs(v) <= math.MaxInt64/float64(2*time.Second)) {
			return fmt.Errorf("%v seconds are too many", v)
		}
		*d = Duration(v * float64(time.Second))
		return nil
	case string:
		p, err := ParseDuration(v)
		*d = p
		return err
	}
	return errDuration
}

// MarshalJSON writes the form of String.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// String writes whole days as "30d", anything else as time.Duration does.
func (d Duration) String() string {
	if t := time.Duration(d); t != 0 && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	return time.Duration(d).String()
}

var errDuration = errors.New(`wants a time such as "90s", "24h" or "30d", or a number of seconds`)

// ParseDuration reads a duration as it is written in the configuration.
func ParseDuration(s string) (Duration, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > -1<<32 && n < 1<<32 {
		return Duration(n) * Duration(time.Second), nil
	}
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "", s
	}
	var sum time.Duration
	if ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err != nil || n > math.MaxInt64/int64(2*day) || n < -math.MaxInt64/int64(2*day) {
			return 0, errDuration
		}
		sum = time.Duration(n) * day
	}
	if rest != "" || !ok {
		t, err := time.ParseDuration(rest)
		if err != nil || t.Abs() > math.MaxInt64/2 {
			return 0, errDuration
		}
		sum += t
	}
	return Duration(sum), nil
}

// A Size is a number of bytes, written "64k", "256m", "1g", "2t" or as a
// number. The units are powers of 1024.
type Size int64

var errSize = errors.New(`wants a size such as "64k", "256m" or "1g", or a number of bytes`)

// UnmarshalJSON reads either form.
func (s *Size) UnmarshalJSON(b []byte) error {
	text := string(b)
	if text == "null" {
		return nil
	}
	if b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	n, err := ParseSize(text)
	if err != nil {
		return err
	}
	*s = n
	return nil
}

// ParseSize reads a size: a number of bytes, or one with k, m, g or t behind it.
func ParseSize(text string) (Size, error) {
	digits, shift := text, 0
	if text != "" {
		last := text[len(text)-1] | 0x20 // lower case
		if i := strings.IndexByte("kmgt", last); i >= 0 {
			digits, shift = text[:len(text)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64>>shift || n < 0 {
		return 0, errSize
	}
	return Size(n << shift), nil
}

// MarshalJSON writes the form of String.
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// String writes s with the largest unit that divides it.
func (s Size) String() string {
	units := "kmgt"
	for shift := 40; shift > 0; shift -= 10 {
		if s != 0 && s%(1<<shift) == 0 {
			return strconv.FormatInt(int64(s>>shift), 10) + string(units[shift/10-1])
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Names is written as one name or as a list of names.
type Names []string

// UnmarshalJSON reads either form.
func (n *Names) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*n = nil
		if one != "" {
			*n = Names{one}
		}
		return nil
	}
	var list []string
	if json.Unmarshal(b, &list) != nil {
		return errors.New("wants a name or a list of names")
	}
	*n = list
	return nil
}

// Allow says which commands may run: nil leaves it to the catalogue of cbsd's
// commands, AllowAll takes every one that needs no terminal, and any other list
// is the list of those that may.
type Allow []string

// AllowAll is what the key "allow" holds to take every command.
const AllowAll = "all"

// All reports whether every command may run.
func (a Allow) All() bool { return len(a) == 1 && a[0] == AllowAll }

// UnmarshalJSON reads a list of commands, or "all".
func (a *Allow) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		switch {
		case string(b) == "null":
			*a = nil
		case one == AllowAll:
			*a = Allow{AllowAll}
		default:
			return errAllow
		}
		return nil
	}
	list := []string{}
	if json.Unmarshal(b, &list) != nil {
		return errAllow
	}
	*a = list
	return nil
}

var errAllow = fmt.Errorf("wants a list of commands, or %q", AllowAll)
