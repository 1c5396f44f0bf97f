package journal

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cbsd/cbsdmq"
)

// A modelJob is what a row says.
type modelJob struct {
	ID, Ident, Sender, Key string
	State                  cbsdmq.State
	Flags                  Flags
	N                      uint64
	Begun, Ended, Dropped  bool
	Output                 string
	Addresses              map[string]AddressState // by tube
}

// A model is a journal as maps.
type model struct {
	Jobs       map[int64]*modelJob
	Alias      map[string]int64
	Tombstones map[string]bool
	N, Commits uint64
	Generation uint64
}

func (m *model) clone() *model {
	c := *m
	c.Alias, c.Tombstones = maps.Clone(m.Alias), maps.Clone(m.Tombstones)
	c.Jobs = make(map[int64]*modelJob)
	for seq, j := range m.Jobs {
		k := *j
		k.Addresses = maps.Clone(j.Addresses)
		c.Jobs[seq] = &k
	}
	return &c
}

func (m *model) find(is func(*modelJob) bool) int64 {
	for seq, j := range m.Jobs {
		if is(j) {
			return seq
		}
	}
	return 0
}

func (m *model) last() int64 {
	last := int64(0)
	for seq := range m.Jobs {
		last = max(last, seq)
	}
	return last
}

// known is the job that a delivery repeats, or 0.
func (m *model) known(r *Job) int64 {
	if r.Flags&Legacy != 0 {
		return m.find(func(j *modelJob) bool { return j.Ident == r.Ident })
	}
	if seq := m.Alias[r.ID]; seq != 0 {
		return seq
	}
	if seq := m.find(func(j *modelJob) bool { return j.ID == r.ID }); seq != 0 {
		return seq
	}
	seq := m.find(func(j *modelJob) bool { return r.Key != "" && j.Key == r.Key && j.Sender == r.Sender })
	if seq != 0 {
		m.Alias[r.ID] = seq
	}
	return seq
}

func (m *model) freeID(r *Job) string {
	taken := func(id string) bool { return m.find(func(j *modelJob) bool { return j.ID == id }) != 0 }
	if r.Flags&Legacy == 0 || !taken(r.ID) {
		return r.ID
	}
	last := 1
	for _, j := range m.Jobs {
		if suffix, ok := strings.CutPrefix(j.ID, r.ID+"."); ok {
			if n, err := strconv.Atoi(suffix); err == nil {
				last = max(last, n)
			}
		}
	}
	return fmt.Sprintf("%s.%d", r.ID, last+1)
}

// An answer is what Commit says.
type answer struct {
	Accepts []string
	N       []uint64
	Late    []bool
}

// commit applies a batch in the order that Commit promises.
func (m *model) commit(b *Batch) answer {
	var out answer
	for _, id := range b.Tombstone {
		m.Tombstones[id] = true
	}
	said := make([]func() string, len(b.Accept))
	for i, a := range b.Accept {
		r := a.Job
		if seq := m.known(r); seq != 0 {
			j := m.Jobs[seq]
			_, old := j.Addresses[a.Address.Tube]
			if !old {
				j.Addresses[a.Address.Tube] = Owed
			}
			said[i] = func() string { return fmt.Sprintf("known %d %s new=%v", seq, j.State, !old) }
			continue
		}
		seq := m.last() + 1
		cancelled := r.Flags&Legacy == 0 && m.Tombstones[r.ID]
		j := &modelJob{
			ID: m.freeID(r), Ident: r.Ident, Sender: r.Sender, Key: r.Key, Flags: r.Flags, State: cbsdmq.Queued,
			Addresses: map[string]AddressState{a.Address.Tube: Owed},
		}
		if cancelled {
			j.Flags |= Cancelled
		}
		if a.Begin && !cancelled {
			m.N++
			j.State, j.Begun, j.N = cbsdmq.Running, true, m.N
		}
		if a.End != nil {
			j.State, j.Ended, j.Output = a.End.State, true, string(a.End.Output)
		}
		m.Jobs[seq] = j
		id, n := j.ID, j.N
		said[i] = func() string { return fmt.Sprintf("new %d %s n=%d cancelled=%v", seq, id, n, cancelled) }
	}
	for _, seq := range b.Unbegin {
		if j := m.Jobs[seq]; j != nil && !j.Ended && j.Begun {
			j.State, j.Begun, j.N = cbsdmq.Queued, false, 0
		}
	}
	for _, g := range b.Begin {
		j, n := m.Jobs[g.Seq], uint64(0)
		if j != nil && !j.Ended && j.State != cbsdmq.Held {
			m.N++
			n = m.N
			j.State, j.Begun, j.N = cbsdmq.Running, true, n
		}
		out.N = append(out.N, n)
	}
	for _, f := range b.Finish {
		j := m.Jobs[f.Seq]
		late := j == nil || j.Ended
		if !late {
			j.State, j.Ended, j.Output = f.State, true, string(f.Output)
		}
		out.Late = append(out.Late, late)
	}
	for _, s := range b.Sent {
		if j := m.Jobs[s.Seq]; j != nil {
			if _, ok := j.Addresses[s.Tube]; ok {
				j.Addresses[s.Tube] = s.State
			}
		}
	}
	for _, seq := range b.Cancel {
		if j := m.Jobs[seq]; j != nil && !j.Ended {
			j.Flags |= Cancelled
		}
	}
	for _, seq := range b.Release {
		if j := m.Jobs[seq]; j != nil && j.State == cbsdmq.Held {
			j.State = cbsdmq.Queued
		}
	}
	for _, say := range said {
		out.Accepts = append(out.Accepts, say())
	}
	m.Commits++
	return out
}

// answered is what Commit has said, in the words of the model.
func answered(b *Batch) answer {
	var out answer
	for _, a := range b.Accept {
		if a.Known != nil {
			out.Accepts = append(out.Accepts, fmt.Sprintf("known %d %s new=%v", a.Known.Seq, a.Known.State, a.NewAddress))
		} else {
			out.Accepts = append(out.Accepts, fmt.Sprintf("new %d %s n=%d cancelled=%v", a.Job.Seq, a.Job.ID, a.Job.N, a.Cancelled))
		}
	}
	for _, g := range b.Begin {
		out.N = append(out.N, g.N)
	}
	for _, f := range b.Finish {
		out.Late = append(out.Late, f.Late)
	}
	return out
}

// prune drops what a time far enough ahead makes old.
func (m *model) prune(results, ids bool) {
	last := m.last()
	for seq, j := range m.Jobs {
		owes := slices.Contains(slices.Collect(maps.Values(j.Addresses)), Owed)
		if !j.Ended || owes {
			continue
		}
		if results || ids {
			j.Dropped, j.Output = true, ""
		}
		if ids && seq != last {
			delete(m.Jobs, seq)
			maps.DeleteFunc(m.Alias, func(_ string, to int64) bool { return to == seq })
		}
	}
	if ids {
		clear(m.Tombstones)
	}
}

// rollBack is what Open makes of a journal that went back in time.
func (m *model) rollBack(seen *model) {
	for _, j := range m.Jobs {
		if !j.Ended && !j.Begun {
			j.State = cbsdmq.Held
		}
	}
	m.N = max(m.N, seen.N)
	m.Generation = max(m.Generation, seen.Generation) + 1
}

// read makes a model of a journal.
func read(t *rapid.T, j *Journal) *model {
	ctx := context.Background()
	meta := j.Meta()
	m := &model{
		Jobs: make(map[int64]*modelJob), Alias: make(map[string]int64), Tombstones: make(map[string]bool),
		N: meta.N, Commits: meta.Commits, Generation: meta.Generation,
	}
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	js, err := j.Reader().Newest(ctx, 1_000_000, "", "")
	check(err)
	for _, r := range js {
		k := &modelJob{
			ID: r.ID, Ident: r.Ident, Sender: r.Sender, Key: r.Key, State: r.State, Flags: r.Flags, N: r.N,
			Begun: !r.Begun.IsZero(), Ended: !r.Finished.IsZero(), Addresses: make(map[string]AddressState),
		}
		f, err := j.Reader().Output(ctx, r.Seq)
		check(err)
		var b bytes.Buffer
		_, err = b.ReadFrom(f)
		check(err)
		f.Close()
		k.Output = b.String()
		m.Jobs[r.Seq] = k
	}
	query := func(q string, row func(a int64, b string, c int64)) {
		rows, err := j.read.QueryContext(ctx, q)
		check(err)
		defer rows.Close()
		for rows.Next() {
			var a, c int64
			var b string
			check(rows.Scan(&a, &b, &c))
			row(a, b, c)
		}
		check(rows.Err())
	}
	query("SELECT job, tube, state FROM address", func(seq int64, tube string, state int64) {
		m.Jobs[seq].Addresses[tube] = AddressState(state)
	})
	query("SELECT seq, '', 0 FROM job WHERE plan IS NULL", func(seq int64, _ string, _ int64) { m.Jobs[seq].Dropped = true })
	query("SELECT job, id, 0 FROM alias", func(seq int64, id string, _ int64) { m.Alias[id] = seq })
	query("SELECT 0, id, 0 FROM tombstone", func(_ int64, id string, _ int64) { m.Tombstones[id] = true })
	return m
}

func drawAccept(t *rapid.T) *Accept {
	a := testAccept(testID(rapid.IntRange(1, 12).Draw(t, "id")))
	a.Job.Sender = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "sender")
	a.Job.Key = rapid.SampledFrom([]string{"", "", "k1", "k2"}).Draw(t, "key")
	if rapid.IntRange(0, 3).Draw(t, "legacy") == 0 {
		n := rapid.IntRange(1, 2).Draw(t, "number")
		a = legacyAccept(n, fmt.Sprintf("b/%d/%d", n, rapid.IntRange(1, 3).Draw(t, "body")))
	}
	a.Address.Tube = rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "tube")
	a.Begin = rapid.Bool().Draw(t, "begin")
	if rapid.IntRange(0, 5).Draw(t, "refused") == 0 {
		a.Begin, a.Job.Plan = false, nil
		a.End = &Finish{State: cbsdmq.Refused, Result: []byte("no")}
	}
	return a
}

func drawBatch(t *rapid.T, m *model) *Batch {
	seqs := rapid.SliceOfN(rapid.Int64Range(1, m.last()+1), 0, 3)
	b := &Batch{Accept: rapid.SliceOfN(rapid.Custom(drawAccept), 0, 4).Draw(t, "accept")}
	b.Unbegin = seqs.Draw(t, "unbegin")
	for _, seq := range seqs.Draw(t, "begin") {
		b.Begin = append(b.Begin, &Begin{Seq: seq})
	}
	for _, seq := range seqs.Draw(t, "finish") {
		f := done(seq, rapid.SampledFrom([]string{"", "out"}).Draw(t, "output"))
		f.State = rapid.SampledFrom([]cbsdmq.State{cbsdmq.Done, cbsdmq.Failed, cbsdmq.Cancelled}).Draw(t, "state")
		b.Finish = append(b.Finish, f)
	}
	for _, seq := range seqs.Draw(t, "sent") {
		for _, tube := range []string{"r1", "r2", "reply1"} {
			state := rapid.SampledFrom([]AddressState{Sent, Undeliverable}).Draw(t, "reply")
			b.Sent = append(b.Sent, SentReply{Seq: seq, Bus: "mem", Tube: tube, State: state})
		}
	}
	b.Cancel = seqs.Draw(t, "cancel")
	b.Release = seqs.Draw(t, "release")
	for _, n := range rapid.SliceOfN(rapid.IntRange(1, 20), 0, 1).Draw(t, "tombstone") {
		b.Tombstone = append(b.Tombstone, testID(n))
	}
	return b
}

// Whatever is done to a journal, it says and holds what the model does.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(memory(), "journal-model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		pool := filepath.Join(dir, "pool")
		open := func() *Journal {
			j, err := Open(context.Background(), testOptions(dir))
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		closeIt := func(j *Journal) {
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
		j := open()
		defer func() { j.Close() }()
		m := &model{Jobs: make(map[int64]*modelJob), Alias: make(map[string]int64), Tombstones: make(map[string]bool), Generation: 1}
		var saved *model // what the files in saved have
		restore := func(from string) {
			closeIt(j)
			if err := os.RemoveAll(pool); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(pool, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			j = open()
		}
		save := func(to string) {
			if err := os.RemoveAll(to); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(to, os.DirFS(pool)); err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				b := drawBatch(t, m)
				want := m.commit(b)
				if err := j.Commit(b); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want, answered(b)); d != "" {
					t.Fatalf("Commit says (-want +got):\n%s", d)
				}
			},
			"fail": func(t *rapid.T) {
				b := drawBatch(t, m)
				big := testAccept("01K9ZZZZZZZZZZZZZZZZZZZZZZ")
				big.Begin, big.Job.Plan = true, make([]byte, 1<<20)
				b.Accept = append(b.Accept, big)
				fill(t, j)
				if err := j.Commit(b); !Full(err) {
					t.Fatalf("a commit into a full database: %v", err)
				}
				unfill(t, j)
			},
			"prune": func(t *rapid.T) {
				days := rapid.SampledFrom([]int{0, 8, 40}).Draw(t, "days")
				m.prune(days > 7, days > 30)
				l := Limits{Results: 7 * 24 * time.Hour, IDs: 30 * 24 * time.Hour}
				for more := true; more; {
					var err error
					if more, err = j.Prune(context.Background(), later(24*days), l); err != nil {
						t.Fatal(err)
					}
				}
			},
			"reopen": func(t *rapid.T) {
				closeIt(j)
				j = open()
				if held := m.held(); (j.Past() != nil) != (held > 0) || held > 0 && j.Past().Held != held {
					t.Fatalf("%d jobs are held, Past is %+v", held, j.Past())
				}
			},
			"crash": func(t *rapid.T) {
				now := filepath.Join(dir, "now")
				save(now)
				restore(now)
			},
			"snapshot": func(t *rapid.T) {
				save(filepath.Join(dir, "saved"))
				saved = m.clone()
			},
			"rollback": func(t *rapid.T) {
				if saved == nil || saved.Commits == m.Commits && saved.Generation == m.Generation {
					return
				}
				seen := m
				restore(filepath.Join(dir, "saved"))
				m = saved.clone()
				m.rollBack(seen)
				if j.Past() == nil || j.Past().Held != m.held() {
					t.Fatalf("%d jobs are held, Past is %+v", m.held(), j.Past())
				}
			},
			"": func(t *rapid.T) {
				if d := cmp.Diff(m, read(t, j)); d != "" {
					t.Fatalf("the journal holds (-want +got):\n%s", d)
				}
			},
		})
	})
}

func (m *model) held() (n int) {
	for _, j := range m.Jobs {
		if j.State == cbsdmq.Held {
			n++
		}
	}
	return n
}
