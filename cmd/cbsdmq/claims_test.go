package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cbsd/cbsdmq/config"
)

// Two pools of one host that are asked for the same guest at the same moment.
func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosted{making: new(claims)}
		want := func(pool, guest, other string) {
			t.Helper()
			if got := h.elsewhere(t.Context(), &config.Config{Pool: pool}, guest); got != other {
				t.Errorf("%s asks for %s: %q has it, want %q", pool, guest, got, other)
			}
		}
		want("pool1", "vm1", "")
		want("pool1", "vm1", "")
		want("pool2", "vm1", "pool1")
		want("pool2", "vm2", "")
		h.making.release("pool2", "vm1") // not its own
		want("pool2", "vm1", "pool1")
		h.making.release("pool1", "vm1")
		want("pool2", "vm1", "")
		time.Sleep(claimTime)
		want("pool1", "vm1", "") // nobody released it
		for i := range claimsMax {
			want("pool1", fmt.Sprint("g", i), "")
		}
		if n := len(h.making.by); n > claimsMax {
			t.Errorf("%d claims", n)
		}
	})
}

// Two agents of one host, with a process each.
func TestClaimsOfAgents(t *testing.T) {
	var one, two claims
	state := t.TempDir()
	for range 2 {
		if other := one.claim(state, "pool1", "vm1"); other != "" {
			t.Errorf("pool1: %q has it", other)
		}
	}
	if other := two.claim(state, "pool2", "vm1"); other != "pool1" {
		t.Errorf("pool2: %q has it, want pool1", other)
	}
	two.release("pool2", "vm1")
	one.release("pool1", "vm1")
	if other := two.claim(state, "pool2", "vm1"); other != "" {
		t.Errorf("pool2, after it was released: %q has it", other)
	}
	if other := one.claim(state, "pool1", "vm1"); other != "pool2" {
		t.Errorf("pool1: %q has it, want pool2", other)
	}
	two.by["vm1"].lock.Close() // as when its process is gone
	if other := one.claim(state, "pool1", "vm1"); other != "" {
		t.Errorf("pool1, after the other's end: %q has it", other)
	}
}
