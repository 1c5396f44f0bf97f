package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
)

// The same seed makes the same jobs, but for their ids, which have the time.
func TestSeed(t *testing.T) {
	jobs := func(seed uint64) (all []string) {
		r := &round{seed: seed}
		p := &pool{name: "pool1"}
		l := p.workload(r.rand("pool1l0"), "l0")
		for range 200 {
			j, know := l.next()
			all = append(all, fmt.Sprint(j.Command, j.Args, j.Words, j.InOrder, know.Guests, know.Changes))
		}
		return all
	}
	if !reflect.DeepEqual(jobs(7), jobs(7)) {
		t.Error("the same seed makes other jobs")
	}
	if reflect.DeepEqual(jobs(7), jobs(8)) {
		t.Error("another seed makes the same jobs")
	}
}

// What the bench takes for harmless must be a job, and what it takes for
// hostile must not be one that every agent takes.
func TestJobs(t *testing.T) {
	r := &round{seed: 1}
	l := (&pool{name: "pool1"}).workload(r.rand("x"), "l0")
	tokens := make(map[string]bool)
	for range 500 {
		j, know := l.next()
		text, err := body(j, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cbsdmq.ParseJob(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if tokens[know.Token] || !strings.Contains(string(text), `"`+know.Token+`"`) {
			t.Errorf("%s has no token of its own: %s", text, know.Token)
		}
		tokens[know.Token] = true
	}
}

// soakOf is a soak whose gauge has these values.
func soakOf(name string, values ...int64) *soak {
	s := &soak{jobs: 1000}
	for i, v := range values {
		s.samples = append(s.samples, sample{Jobs: i * 10, Seconds: float64(i + 1), Values: map[string]int64{name: v}})
	}
	return s
}

func TestFlat(t *testing.T) {
	var flat, grows []int64
	for i := range int64(100) {
		flat = append(flat, 30<<10+min(i, 40)*100+i%7*50)
		grows = append(grows, 30<<10+i*500)
	}
	if bad := soakOf("agent memory", flat...).judge(io.Discard, 10); len(bad) > 0 {
		t.Errorf("flat memory: %q", bad)
	}
	if bad := soakOf("agent memory", grows...).judge(io.Discard, 10); !reflect.DeepEqual(bad, []string{"agent memory"}) {
		t.Errorf("memory that grows: %q", bad)
	}
	if bad := soakOf("agent memory", flat...).judge(io.Discard, 1000); !reflect.DeepEqual(bad, []string{"goroutines"}) {
		t.Errorf("goroutines that stay: %q", bad)
	}
	s := soakOf("agent memory", flat...)
	s.strange = 1
	if bad := s.judge(io.Discard, 10); !reflect.DeepEqual(bad, []string{"replies"}) {
		t.Errorf("a reply too many: %q", bad)
	}
}

func TestGraph(t *testing.T) {
	s := soakOf("journal", 1, 5, 9, 2048)
	svg := graph("4 jobs <&> more", s.samples)
	d := xml.NewDecoder(bytes.NewReader(svg))
	lines := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 1 {
		t.Errorf("%d lines for one gauge", lines)
	}
}
