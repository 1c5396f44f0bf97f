package journal

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

func TestPausesAndVerdicts(t *testing.T) {
	dir := memoryDir(t)
	j := openTest(t, dir)
	at := time.UnixMicro(1_800_000_000_000_000)
	seq := accept(t, j, testAccept(testID(1))).Seq
	commit(t, j, Batch{
		Pause: []cbsdmq.Pause{{Guest: "jail1", Reason: "a", By: "anna", Since: at}, {Reason: "all", By: "anna", Since: at}},
	})
	commit(t, j, Batch{
		Pause:   []cbsdmq.Pause{{Guest: "jail1", Reason: "b", By: "bert", Since: at}, {Guest: "jail2"}},
		Resume:  []string{"jail2", "nosuch"},
		Verdict: []Verdict{{Seq: seq, Verdict: cbsdmq.Verdict{State: cbsdmq.Failed, By: "anna", At: at}}, {Seq: seq, Verdict: cbsdmq.Verdict{State: cbsdmq.Done, By: "bert", Reason: "r", At: at}}},
	})
	j = reopen(t, j, dir)
	defer j.Close()
	ps, err := j.Reader().Pauses(t.Context())
	if err != nil || len(ps) != 2 || ps[0].Guest != "" || ps[1] != (cbsdmq.Pause{Guest: "jail1", Reason: "b", By: "bert", Since: at}) {
		t.Errorf("pauses %+v, %v", ps, err)
	}
	v, err := j.Reader().Verdict(t.Context(), seq)
	if err != nil || v == nil || *v != (cbsdmq.Verdict{State: cbsdmq.Done, By: "bert", Reason: "r", At: at}) {
		t.Errorf("verdict %+v, %v", v, err)
	}
	if v, err := j.Reader().Verdict(t.Context(), seq+1); v != nil || err != nil {
		t.Errorf("verdict on nothing: %+v, %v", v, err)
	}
}

// Acts are kept as long as ids, and not more than so many.
func TestActsAreBounded(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	now := time.Now()
	limits := Limits{Results: time.Minute, IDs: time.Hour}
	old := now.Add(-limits.forget() - time.Minute)
	var b Batch
	for i := range actsMax + 30 {
		a := cbsdmq.Act{At: now, By: "anna", What: "pause", Guest: "jail1"}
		if i < 10 || i == actsMax+5 { // one of them out of its order
			a.At = old
		}
		if i%2 == 1 {
			a.Guest, a.Job = "", fmt.Sprint(i)
		}
		b.Act = append(b.Act, a)
	}
	commit(t, j, b)
	for more := true; more; {
		var err error
		if more, err = j.Prune(t.Context(), now, limits); err != nil {
			t.Fatal(err)
		}
	}
	all, err := j.Reader().Acts(t.Context(), 2*actsMax, "", time.Time{}, 0)
	if err != nil || len(all) != actsMax-1 || all[0].Seq != actsMax+30 || all[len(all)-1].Seq != 31 {
		t.Errorf("%d acts, %v", len(all), err)
	}
	some, err := j.Reader().Acts(t.Context(), 2, "jail1", now.Add(-time.Minute), all[0].Seq)
	if err != nil || len(some) != 2 || some[0].Seq != actsMax+29 || some[1].Seq != actsMax+27 {
		t.Errorf("%+v, %v", some, err)
	}
	// However fast they come, none is left over.
	b = Batch{Act: slices.Repeat([]cbsdmq.Act{{At: now, By: "anna", What: "cancel"}}, 3*pruneStep)}
	commit(t, j, b)
	for more := true; more; {
		if more, err = j.Prune(t.Context(), now, limits); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := j.Reader().Acts(t.Context(), 2*actsMax, "", time.Time{}, 0); err != nil || len(all) != actsMax-1 {
		t.Errorf("%d acts, %v", len(all), err)
	}
	// A verdict goes with its job.
	seq := accept(t, j, testAccept(testID(1))).Seq
	accept(t, j, testAccept(testID(2)))
	commit(t, j, Batch{Finish: []*Finish{done(seq, "")}, Verdict: []Verdict{{Seq: seq}}})
	sendAll(t, j)
	for range 3 {
		if _, err := j.Prune(t.Context(), now.Add(24*time.Hour), limits); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := j.Reader().Verdict(t.Context(), seq); v != nil || err != nil {
		t.Errorf("the verdict on a forgotten job: %+v, %v", v, err)
	}
}
