package agent

import (
	"context"
	"encoding/json"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/journal"
)

// A streamer pushes the output of one running command, piece by piece, to the
// address that asked for it. It is a convenience: a client that misses a piece
// asks for it by its offset. So a streamer gives up early rather than hold up
// the last reply or fill the broker for a client that has gone.
type streamer struct {
	s      *Server
	id     string
	addrs  []journal.Address
	offset int64
	seq    int
	end    chan streamEnd
	work   *cbsdmq.Work // what was last said of how far it is
	looked time.Time
}

type streamEnd struct {
	seq   int64
	addrs []journal.Address
	body  []byte // of the last reply; nil: in the journal
}

const (
	pieceSize   = 32 << 10
	pieceAhead  = 64 // pieces that may lie unread
	streamPoll  = 50 * time.Millisecond
	streamFlush = 10 * time.Second // for what is left when the command has ended
)

func (l *loop) stream(j *job) {
	if j.streaming != nil {
		return
	}
	st := &streamer{s: l.s, id: j.row.ID, end: make(chan streamEnd, 1)}
	for _, a := range j.addrs {
		if !a.BrokerID { // which may be a stranger's while the command runs
			st.addrs = append(st.addrs, a)
		}
	}
	if len(st.addrs) == 0 {
		return
	}
	j.streaming = st
	go st.run(l.s.life)
}

// finish tells the streamer that the job has ended. It sends the last reply.
func (st *streamer) finish(e streamEnd) { st.end <- e }

func (st *streamer) run(ctx context.Context) {
	t := time.NewTicker(streamPoll)
	defer t.Stop()
	buf := make([]byte, pieceSize)
	for {
		select {
		case end := <-st.end:
			st.flush(ctx, end, buf)
			st.s.owe(end.seq, end.addrs, end.body)
			return
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for {
			n, ok := st.s.live.read(st.id, buf, st.offset)
			if !ok || n == 0 || !st.push(ctx, buf[:n]) {
				break
			}
		}
		st.tell(ctx)
	}
}

// flush pushes what lies between the last piece and the last reply.
func (st *streamer) flush(ctx context.Context, end streamEnd, buf []byte) {
	ctx, cancel := context.WithTimeout(ctx, streamFlush)
	defer cancel()
	row, err := st.s.cfg.Journal.Reader().BySeq(ctx, end.seq)
	if err != nil || row == nil {
		return
	}
	status, err := st.s.status(ctx, row)
	if err != nil || status.Final == nil {
		return
	}
	last := status.Final.Offset
	for st.offset < last {
		p := buf[:min(int64(len(buf)), last-st.offset)]
		n, from, err := st.s.storedOutput(ctx, row, p, st.offset)
		if err != nil || n == 0 {
			return
		}
		st.offset = from
		if !st.push(ctx, p[:n]) && !sleep(ctx, streamPoll) {
			return
		}
	}
}

// tell sends how far the command is, without output, where that has changed.
func (st *streamer) tell(ctx context.Context) {
	if now := time.Now(); now.Sub(st.looked) >= workEvery {
		st.looked = now
		w := st.s.work(ctx, st.id)
		if w == nil || st.work != nil && *w == *st.work {
			return
		}
		st.work = w
		st.push(ctx, nil)
	}
}

// push sends one piece and moves on if the broker has it.
func (st *streamer) push(ctx context.Context, p []byte) bool {
	if st.seq%pieceAhead == pieceAhead-1 && !st.read(ctx) {
		return false
	}
	r := cbsdmq.Reply{
		DskGuid: "0", Guid: "0", ID: cbsdmq.PrintedID(st.s.cfg.Pool, st.id),
		Seq: st.seq + 1, Offset: st.offset,
	}
	if st.work != nil {
		r.Progress = st.work.Percent
	}
	if p == nil {
		r.Work = st.work
	}
	r.SetOutput(p)
	r = r.Fit(replyMax)
	body, err := json.Marshal(r)
	if err != nil {
		return false
	}
	for _, a := range st.addrs {
		o := st.s.out[a.Bus]
		if o == nil {
			continue
		}
		putCtx, cancel := context.WithTimeout(ctx, o.e.Timeout)
		res := o.e.Bus.Put(putCtx, bus.Message{Tube: bus.Tube{Name: a.Tube, Kind: bus.Mailbox}, Body: body, TTL: st.s.cfg.ReplyTTL})
		cancel()
		if res[0].Err != nil {
			return false
		}
	}
	st.seq++
	st.offset += int64(len(r.Output()))
	return true
}

// read reports whether the client keeps up.
func (st *streamer) read(ctx context.Context) bool {
	for _, a := range st.addrs {
		o := st.s.out[a.Bus]
		if o == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, o.e.Timeout)
		info, err := o.e.Bus.Inspect(ctx, bus.Tube{Name: a.Tube, Kind: bus.Mailbox})
		cancel()
		// Where the broker does not tell, nobody knows that they are read.
		if err != nil || info.Ready < 0 || info.Ready >= pieceAhead {
			return false
		}
	}
	return true
}
