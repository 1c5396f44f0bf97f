package agent

import (
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

func TestMeasureLook(t *testing.T) {
	begun := time.Now()
	m := new(measure)
	for _, c := range []struct {
		after time.Duration
		is    cbsd.Moved
		size  int64
		want  *cbsdmq.Work
	}{
		{2 * time.Second, cbsd.Moved{Percent: -1}, 0, nil},
		{3 * time.Second, cbsd.Moved{Percent: -1, What: "a", Bytes: 100, Of: 1000}, 0, &cbsdmq.Work{What: "a", Percent: 10, Bytes: 100, Of: 1000}},
		{13 * time.Second, cbsd.Moved{Percent: -1, What: "a", Bytes: 300, Of: 1000}, 0, &cbsdmq.Work{What: "a", Percent: 30, Bytes: 300, Of: 1000, Left: 35}},
		{14 * time.Second, cbsd.Moved{Percent: -1, What: "b", Bytes: 50, Of: 100}, 0, &cbsdmq.Work{What: "b", Percent: 50, Bytes: 50, Of: 100}},
		{15 * time.Second, cbsd.Moved{Percent: -1, What: "b", Bytes: 100, Of: 100}, 0, &cbsdmq.Work{What: "b", Percent: 99, Bytes: 100, Of: 100}},
		{16 * time.Second, cbsd.Moved{Percent: 20}, 10, &cbsdmq.Work{Percent: 20}},
		{26 * time.Second, cbsd.Moved{Percent: 40}, 10, &cbsdmq.Work{Percent: 40, Left: 30}},
		{100 * time.Second, cbsd.Moved{Percent: 40}, 11, &cbsdmq.Work{Percent: 40, Left: 252}}, // it has printed something
		{219 * time.Second, cbsd.Moved{Percent: 40}, 11, &cbsdmq.Work{Percent: 40, Left: 609}},
		{220 * time.Second, cbsd.Moved{Percent: 40}, 11, &cbsdmq.Work{Percent: 40, Still: 120}},
		{221 * time.Second, cbsd.Moved{Percent: -1}, 11, nil},
		{400 * time.Second, cbsd.Moved{Percent: -1}, 11, &cbsdmq.Work{Still: 179}},
	} {
		m.look(begun.Add(c.after), begun, c.is, c.size)
		switch {
		case m.work == nil && c.want == nil:
		case m.work == nil || c.want == nil || *m.work != *c.want:
			t.Errorf("after %s: got %+v, want %+v", c.after, m.work, c.want)
		}
	}
}
