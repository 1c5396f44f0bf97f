package journal

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

// What docs/OPERATING.md says that a job takes whose results were dropped, and how
// to have that told of a journal.
const (
	rememberedSize  = 1200
	rememberedQuery = "SELECT count(*) AS jobs, (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size) AS bytes FROM job"
)

// What is kept of a job for id_memory is small.
func TestRememberedSize(t *testing.T) {
	dir := memoryDir(t)
	j := openTest(t, dir)
	defer j.Close()
	plan, result := bytes.Repeat([]byte("p"), 400), bytes.Repeat([]byte("r"), 300)
	const batch = 500
	made := 0
	grow := func(n int) int64 {
		for i := 0; i < n; i += batch {
			var b, done Batch
			for range batch {
				made++
				id := fmt.Sprintf("01M82R0N9EXPGHS4%010d", made)
				b.Accept = append(b.Accept, &Accept{
					Job:     &Job{ID: id, Ident: id, Sender: "shop@www.my.domain", Key: "ORDER-" + id, Bus: "beanstalkd", Command: "bset", Guest: "vm1", Plan: plan, Accepted: time.Now()},
					Address: Address{Bus: "beanstalkd", Tube: "cbsd_pool1_result_id4503599627370496"},
					Begin:   true,
				})
			}
			commit(t, j, b)
			for _, a := range b.Accept {
				done.Finish = append(done.Finish, &Finish{Seq: a.Job.Seq, State: cbsdmq.Done, Result: result, Output: []byte("ok\n"), OutSize: 3})
				done.Sent = append(done.Sent, SentReply{Seq: a.Job.Seq, Bus: a.Address.Bus, Tube: a.Address.Tube, State: Sent})
			}
			commit(t, j, done)
		}
		pruneAll(t, j, time.Now().Add(8*24*time.Hour), Limits{Results: 7 * 24 * time.Hour, IDs: 30 * 24 * time.Hour})
		var jobs, size, free int64
		if err := j.write.QueryRowContext(t.Context(), rememberedQuery).Scan(&jobs, &size); err != nil || jobs != int64(made) {
			t.Fatalf("%d jobs of %d, %v", jobs, made, err)
		}
		if err := j.write.QueryRowContext(t.Context(), "PRAGMA freelist_count").Scan(&free); err != nil {
			t.Fatal(err)
		}
		return size - free*4096
	}
	first := grow(5000)
	each := (grow(10000) - first) / 10000
	if each < rememberedSize*3/4 || each > rememberedSize*5/4 {
		t.Errorf("%d bytes for each job that is remembered", each)
	}
	page, err := os.ReadFile("../docs/OPERATING.md")
	if err != nil || !strings.Contains(string(page), "1.2 KB") || !strings.Contains(string(page), rememberedQuery) {
		t.Errorf("docs/OPERATING.md says otherwise, %v", err)
	}
}
