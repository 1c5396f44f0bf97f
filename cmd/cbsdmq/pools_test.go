package main

import (
	"testing"

	"github.com/cbsd/cbsdmq"
)

// What is wrong is not hidden behind a pause, and no pool with trouble serves.
func TestPoolState(t *testing.T) {
	pause := &cbsdmq.Pause{Reason: "disk swap"}
	for _, c := range []struct {
		agent cbsdmq.AgentInfo
		want  string
	}{
		{cbsdmq.AgentInfo{}, "serving"},
		{cbsdmq.AgentInfo{Paused: pause}, "paused"},
		{cbsdmq.AgentInfo{Trouble: "the disk of the journal is full"}, "in trouble"},
		{cbsdmq.AgentInfo{Trouble: "the disk of the journal is full", Paused: pause}, "in trouble"},
	} {
		if got := poolState(c.agent); got != c.want {
			t.Errorf("%+v is %q, want %q", c.agent, got, c.want)
		}
	}
}
