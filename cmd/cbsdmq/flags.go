package main

import (
	"errors"

	"github.com/cbsd/cbsdmq/config"
)

// timeFlag is a time as it is written in the configuration: "90s", "30d", or a
// number of seconds.
type timeFlag config.Duration

// String writes the value as the usage shows it.
func (t *timeFlag) String() string { return config.Duration(*t).String() }

// Set reads the value of the flag.
func (t *timeFlag) Set(s string) error {
	d, err := config.ParseDuration(s)
	if err == nil && d < 0 {
		err = errors.New("negative")
	}
	*t = timeFlag(d)
	return err
}

// Type names the value in usage texts.
func (*timeFlag) Type() string { return "time" }

// sizeFlag is a number of bytes as it is written in the configuration: "20g".
type sizeFlag config.Size

// String writes the value as the usage shows it.
func (s *sizeFlag) String() string { return size(int64(*s)) }

// Set reads the value of the flag.
func (s *sizeFlag) Set(text string) error {
	n, err := config.ParseSize(text)
	*s = sizeFlag(n)
	return err
}

// Type names the value in usage texts.
func (*sizeFlag) Type() string { return "size" }
