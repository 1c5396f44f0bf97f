package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

// hostiles are bodies that must not run, whole or in part. CANARY is a shell
// command that leaves a trace if anybody evaluates it.
var hostiles = []string{
	``, ` `, `{`, `null`, `[]`, `"bset"`, `{}`, "\xff\xfe\x00", `{"Command":`,
	`{"Command":""}`, `{"Command":"bset"`, `{"Command":"bset","CommandArgs":"jname=g0"}`,
	`{"Command":"bset","CommandArgs":["jname=g0","tags=x"]}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":null}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":{"a":"b"}}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x","tags":"y"}}`,
	`{"Command":"bset","command":"bremove","CommandArgs":{"jname":"g0"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x"}}{"Command":"bset"}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"$(CANARY)"}}`,
	"{\"Command\":\"bset\",\"CommandArgs\":{\"jname\":\"g0\",\"tags\":\"`CANARY`\"}}",
	`{"Command":"bset","CommandArgs":{"jname":"g0","astart":"x;CANARY"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x\nCANARY\n"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"\"; CANARY; \""}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","astart":"x|CANARY&CANARY"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"${IFS}$(CANARY)"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0;CANARY","tags":"x"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"*","tags":"x"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"../g0","tags":"x"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags;CANARY":"x"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","$(CANARY)":"x"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","vm_rma":"64m"}}`,
	`{"Command":"bset; CANARY","CommandArgs":{"jname":"g0","tags":"x"}}`,
	`{"Command":"$(CANARY)"}`, `{"Command":"../../bin/sh"}`, `{"Command":"-c"}`, `{"Command":"bset\n"}`,
	`{"Command":"jexec","CommandArgs":{"jname":"g0","cmd":"CANARY"}}`,
	`{"Command":"bexec","CommandArgs":{"jname":"g0"}}`,
	`{"Command":"task","CommandArgs":{"mode":"new","cmd":"CANARY"}}`,
	`{"Command":"blogin","CommandArgs":{"jname":"g0"}}`,
	`{"Command":"nosuchcommand","CommandArgs":{"jname":"g0"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x"},"cbsdmq":{"v":99,"id":"FRESH"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x"},"cbsdmq":{"v":1,"id":"../../x"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x"},"cbsdmq":{"v":1,"id":"STALE"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x"},"cbsdmq":{"v":1,"id":"FRESH","pool":"elsewhere"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0"},"cbsdmq":{"v":1,"id":"FRESH","words":["$(CANARY)"]}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x"},"cbsdmq":{"v":1,"id":"FRESH","expires":"2001-01-01T00:00:00Z"}}`,
	`{"Command":"bset","CommandArgs":{"jname":"g0","tags":"x"},"JobID":-1}`,
	`{"Command":"bset","CommandArgs":{"jname":"LONG","tags":"x"}}`,
	`{"Command":"bset","CommandArgs":DEEP}`,
}

// hostile puts them on the tube, and rubbish on the control lane, all the while.
func (r *raw) hostile(rnd *rand.Rand) {
	defer r.wg.Wait()
	slots := make(chan struct{}, inFlight)
	for n := rnd.IntN(len(hostiles)); wait(r.t.chaos, between(rnd, r.t.think[0], r.t.think[1])); n++ {
		if rnd.IntN(5) == 0 {
			r.rubbish(rnd)
			continue
		}
		text := r.fill(hostiles[n%len(hostiles)])
		know := judge.Job{
			ID: fmt.Sprintf("hostile %d of %s: %.60q", r.l.n, r.l.sender, text), Pool: r.p.name, Hostile: true, Legacy: true,
			Ends: []cbsdmq.State{cbsdmq.Refused},
		}
		job, done := r.rec.submitted(know, "")
		r.l.n++
		box, ok := r.putNumbered([]byte(text), job, done)
		if !ok {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-r.t.life.Done():
			return
		}
		r.wg.Go(func() {
			defer func() { <-slots }()
			r.await(job, box)
		})
	}
}

func (r *raw) fill(text string) string {
	return strings.NewReplacer(
		"CANARY", "touch "+strings.ReplaceAll(r.p.canary, `"`, ``),
		"FRESH", freshID(r.l.rnd),
		"STALE", "0000000000"+freshID(r.l.rnd)[10:], // of 1970
		"LONG", strings.Repeat("x", 60<<10),
		"DEEP", strings.Repeat(`{"a":`, 10000)+"1"+strings.Repeat("}", 10000),
	).Replace(text)
}

// rubbish goes to the control lane.
func (r *raw) rubbish(rnd *rand.Rand) {
	texts := []string{
		"", "{", "null", "\x00\xff", `{"v":1}`, `{"v":1,"op":"status","reply":"../x","req":"1"}`,
		`{"v":99,"op":"jobs","reply":"` + freshID(rnd) + `","req":"1"}`,
		`{"v":1,"op":"output","reply":"` + freshID(rnd) + `","req":"1","job":"` + freshID(rnd) + `","offset":-5}`,
		`{"v":1,"op":"cancel","reply":"` + freshID(rnd) + `","req":"1","job":"` + freshID(rnd) + `"}`,
		`{"v":1,"op":"held","action":"drop","reply":"` + freshID(rnd) + `","req":"1"}`,
		strings.Repeat("[", 60<<10),
	}
	text := texts[rnd.IntN(len(texts))]
	r.bus.Put(r.t.life, bus.Message{Tube: bus.Tube{Name: r.to.Tube + cbsdmq.ControlSuffix}, Body: []byte(text), TTL: time.Minute})
}
