package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Two pools of one host that are asked for the same guest at the same moment.
func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosted{}
		want := func(pool, guest, other string) {
			t.Helper()
			if got := h.elsewhere(t.Context(), pool, guest); got != other {
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
