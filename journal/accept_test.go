package journal

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

// Each delivery of the table comes after the job "first", which has the key
// "order" of the sender "shop" and has ended.
func TestRepeats(t *testing.T) {
	type delivery struct{ id, sender, key, tube string }
	for name, c := range map[string]struct {
		second     delivery
		known      bool
		newAddress bool
	}{
		"redelivery":                     {delivery{testID(1), "shop", "order", "reply1"}, true, false},
		"retry from elsewhere":           {delivery{testID(1), "shop", "order", "reply2"}, true, true},
		"retry without its key":          {delivery{testID(1), "shop", "", "reply1"}, true, false},
		"same key":                       {delivery{testID(2), "shop", "order", "reply2"}, true, true},
		"same key at the same address":   {delivery{testID(2), "shop", "order", "reply1"}, true, false},
		"same key of another sender":     {delivery{testID(2), "other", "order", "reply2"}, false, true},
		"no key":                         {delivery{testID(2), "shop", "", "reply2"}, false, true},
		"two jobs without key or sender": {delivery{testID(2), "", "", "reply2"}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			j := openTest(t, memoryDir(t))
			defer j.Close()
			first := testAccept(testID(1))
			first.Job.Sender, first.Job.Key = "shop", "order"
			seq := accept(t, j, first).Seq
			commit(t, j, Batch{Finish: []*Finish{done(seq, "")}})

			// Once in a batch of its own, once again together with itself.
			for round, twice := range []bool{false, true} {
				a := testAccept(c.second.id)
				a.Job.Sender, a.Job.Key, a.Address.Tube, a.Begin = c.second.sender, c.second.key, c.second.tube, true
				b := *a
				b.Job = new(*a.Job)
				batch := Batch{Accept: []*Accept{a}}
				if twice {
					batch.Accept = append(batch.Accept, &b)
				}
				commit(t, j, batch)
				known := c.known || round > 0
				if got := a.Known != nil; got != known {
					t.Fatalf("round %d: known %v, want %v", round, got, known)
				}
				if got, want := a.NewAddress, c.newAddress && round == 0; got != want {
					t.Errorf("round %d: new address %v, want %v", round, got, want)
				}
				if c.known && (a.Known.Seq != seq || a.Known.State != cbsdmq.Done || string(a.Known.Result) != `{"ErrCode":0}`) {
					t.Errorf("round %d: known as %+v", round, a.Known)
				}
				if twice && (b.Known == nil || b.NewAddress) {
					t.Errorf("its twin of the same batch was taken for another job")
				}
			}
			want := uint64(1)
			if c.known {
				want = 0
			}
			if n := j.Meta().N; n != want {
				t.Errorf("%d begins were numbered, want %d", n, want)
			}
		})
	}
}

// Whatever a client puts into a text comes back and is compared as a whole.
func TestOddTexts(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	for i, text := range []string{"a", "a\x00b", "a\x00c", "A", "a ", "'; DROP TABLE job; --", "\xff\xfe", "ü"} {
		a := testAccept(testID(i))
		a.Job.Sender, a.Job.Key, a.Job.Guest, a.Job.Command, a.Address.Tube = text, text, text, text, text
		r := accept(t, j, a)
		if r.Sender != text || r.Key != text || r.Guest != text || r.Command != text {
			t.Errorf("%q came back as %+v", text, r)
		}
		as, err := j.Reader().Addresses(t.Context(), r.Seq)
		if err != nil || len(as) != 1 || as[0].Address.Tube != text {
			t.Errorf("%q: addresses %+v, %v", text, as, err)
		}
	}
}

func TestAliasIsRemembered(t *testing.T) {
	dir := memoryDir(t)
	j := openTest(t, dir)
	first := testAccept(testID(1))
	first.Job.Sender, first.Job.Key = "shop", "order"
	seq := accept(t, j, first).Seq
	second := testAccept(testID(2))
	second.Job.Sender, second.Job.Key = "shop", "order"
	commit(t, j, Batch{Accept: []*Accept{second}})
	j = reopen(t, j, dir)
	defer j.Close()

	if r, err := j.Reader().Job(t.Context(), testID(2)); err != nil || r == nil || r.Seq != seq {
		t.Errorf("the second id leads to %+v, %v", r, err)
	}
	// The second id again, but its sender has forgotten the key.
	third := testAccept(testID(2))
	commit(t, j, Batch{Accept: []*Accept{third}})
	if third.Known == nil || third.Known.Seq != seq {
		t.Errorf("a repeat of the second id was taken as %+v", third.Known)
	}
}

func TestRefusedAtAcceptance(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	a, twin := testAccept(testID(1)), testAccept(testID(1))
	twin.Address.Tube = "reply2"
	for _, a := range []*Accept{a, twin} {
		a.Job.Plan = nil
		a.End = &Finish{State: cbsdmq.Refused, Result: []byte(`{"ErrCode":2}`)}
	}
	commit(t, j, Batch{Accept: []*Accept{a, twin}})
	r := get(t, j, a.Job.Seq)
	if r.State != cbsdmq.Refused || r.Finished.IsZero() || string(r.Result) != `{"ErrCode":2}` || a.End.Seq != r.Seq {
		t.Errorf("got %+v", r)
	}
	if twin.Known == nil || twin.Known.State != cbsdmq.Refused || !twin.NewAddress {
		t.Errorf("its twin was taken as %+v", twin.Known)
	}
	if js := openJobs(t, j); len(js) != 0 {
		t.Errorf("open: %v", ids(js))
	}
	owed, err := j.Reader().Owed(t.Context())
	if err != nil || len(owed) != 2 {
		t.Errorf("owed %+v, %v", owed, err)
	}
}

func TestTombstone(t *testing.T) {
	for _, together := range []bool{false, true} {
		t.Run(fmt.Sprint("together=", together), func(t *testing.T) {
			dir := memoryDir(t)
			j := openTest(t, dir)
			a := testAccept(testID(1))
			a.Begin = true
			batch := Batch{Tombstone: []string{testID(1), testID(1), testID(9)}}
			if !together {
				commit(t, j, batch)
				j = reopen(t, j, dir)
				batch = Batch{}
			}
			batch.Accept = []*Accept{a}
			commit(t, j, batch)
			if !a.Cancelled || a.Known != nil || a.Job.State != cbsdmq.Queued || j.Meta().N != 0 {
				t.Fatalf("a cancelled job came: %+v, job %+v, n %d", a, a.Job, j.Meta().N)
			}
			// Nobody has ended it yet: the next agent has to know.
			j = reopen(t, j, dir)
			defer j.Close()
			js := openJobs(t, j)
			if len(js) != 1 || js[0].Flags&Cancelled == 0 || !js[0].Begun.IsZero() {
				t.Errorf("open jobs %+v", js)
			}
			again := testAccept(testID(1))
			commit(t, j, Batch{Accept: []*Accept{again}})
			if again.Known == nil || again.Cancelled {
				t.Errorf("its repeat was taken as %+v", again)
			}
		})
	}
}

func TestLegacyNumbers(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	var got []string
	take := func(as ...*Accept) {
		commit(t, j, Batch{Accept: as})
		for _, a := range as {
			id := a.Job.ID
			if a.Known != nil {
				id = "=" + a.Known.ID
			}
			got = append(got, id)
		}
	}
	take(legacyAccept(17, "a/17/x"))
	take(legacyAccept(17, "a/17/x"))                             // redelivered
	take(legacyAccept(17, "a/17/y"), legacyAccept(17, "b/17/x")) // other bodies, other buses
	take(legacyAccept(17, "a/17/y"))
	take(legacyAccept(1, "a/1/x"), legacyAccept(170, "a/170/x"))
	take(legacyAccept(17, LegacyIdent("a/17/x", 2)))
	want := []string{"17", "=17", "17.2", "17.3", "=17.2", "1", "170", "17.4"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ids (-want +got):\n%s", d)
	}
	r, err := j.Reader().Job(t.Context(), "17")
	if err != nil || r.Ident != "a/17/x" {
		t.Errorf("17 is %+v, %v", r, err)
	}
}

func TestLegacyIdentity(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	next := func() (string, int) {
		r, n, err := j.Reader().Legacy(t.Context(), "a/17/x")
		if err != nil {
			t.Fatal(err)
		}
		if r == nil {
			return "", n
		}
		return r.Ident, n
	}
	if ident, n := next(); ident != "" || n != 0 {
		t.Errorf("an empty journal knows %q, %d", ident, n)
	}
	accept(t, j, legacyAccept(17, "a/17/x"))
	accept(t, j, legacyAccept(17, "a/17/xx"))
	for n := 1; n <= 11; n++ {
		want := "a/17/x"
		if n > 1 {
			want = LegacyIdent(want, n)
		}
		if ident, got := next(); ident != want || got != n {
			t.Errorf("got %q, %d, want %q, %d", ident, got, want, n)
		}
		accept(t, j, legacyAccept(17, LegacyIdent("a/17/x", n+1)))
	}
}
