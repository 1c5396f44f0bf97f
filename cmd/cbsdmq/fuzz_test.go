package main

import (
	"errors"
	"strings"
	"testing"
)

// FuzzJobLine: every argument of the command line is an argument or a word of
// the job, in its order, or the line is refused as bad usage.
func FuzzJobLine(f *testing.F) {
	for _, line := range []string{"bset\njname=vm1\nvm_ram=1g", "bget\njname=vm1\nvm_ram", "x\n=y", "", "jls\n\n=", "x\na=b=c\n--help"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\n")
		job, err := (&jobFlags{}).job(args)
		if err != nil {
			if _, ok := errors.AsType[*usageError](err); !ok {
				t.Fatalf("%q: not bad usage: %v", args, err)
			}
			return
		}
		var named, words []string
		for _, arg := range args[1:] {
			if strings.Contains(arg, "=") {
				named = append(named, arg)
			} else {
				words = append(words, arg)
			}
		}
		if job.Command != args[0] || len(job.Args) != len(named) || len(job.Words) != len(words) {
			t.Fatalf("%q became %+v", args, job)
		}
		for i, a := range job.Args {
			if a.Name == "" || a.Name+"="+a.Value != named[i] {
				t.Fatalf("%q became %+v", named[i], a)
			}
		}
		for i, w := range job.Words {
			if w != words[i] {
				t.Fatalf("%q became %q", words[i], w)
			}
		}
	})
}
