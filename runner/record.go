package runner

import (
	"errors"
	"strconv"
	"syscall"
	"time"
)

// The log is lines of text, each one event of one run:
//
//	B BOOT-ID RUNNER-ID                              a runner begins to write
//	M POOL EPOCH N                                   highest key accepted for the pool
//	I POOL EPOCH N TIME SLOT OUTPUT-MAX JOB          accepted, before the fork
//	S POOL EPOCH N TIME PID START                    started
//	T POOL EPOCH N OUT ERR                           bytes dropped so far, before they are
//	X POOL EPOCH N TIME STATUS SIGNAL OUT ERR        exited; OUT and ERR are SIZE DROPPED each
//	F POOL EPOCH N TIME ERRNO REASON                 could not be executed
//	L POOL EPOCH N TIME OUT ERR                      lost
//	A POOL EPOCH N                                   acknowledged, the slot is free
//
// POOL, JOB and REASON are quoted as in Go, TIME is nanoseconds since 1970.
// Runners of all versions read the marks, M and the first fields of I, from
// each other's logs: these stay as they are.
const (
	recBegin   = 'B'
	recMark    = 'M'
	recAccept  = 'I'
	recStart   = 'S'
	recTrim    = 'T'
	recExit    = 'X'
	recFail    = 'F'
	recLost    = 'L'
	recAck     = 'A'
	fieldSpace = ' '
)

func appendBegin(b []byte, boot, runner string) []byte {
	b = append(b, recBegin, fieldSpace)
	b = append(b, boot...)
	b = append(b, fieldSpace)
	b = append(b, runner...)
	return append(b, '\n')
}

// appendRecord appends one line: op, key, nums and, where it is not "", text.
func appendRecord(b []byte, op byte, k Key, text string, nums ...int64) []byte {
	b = append(b, op, fieldSpace)
	b = strconv.AppendQuote(b, k.Pool)
	b = append(b, fieldSpace)
	b = strconv.AppendUint(b, k.Epoch, 10)
	b = append(b, fieldSpace)
	b = strconv.AppendUint(b, k.N, 10)
	for _, n := range nums {
		b = append(b, fieldSpace)
		b = strconv.AppendInt(b, n, 10)
	}
	if op == recAccept || op == recFail {
		b = append(b, fieldSpace)
		b = strconv.AppendQuote(b, text)
	}
	return append(b, '\n')
}

// appendRun appends the line that tells the last event of r.
func appendRun(b []byte, r *run) []byte {
	e, at := &r.ev, r.ev.At.UnixNano()
	switch e.Kind {
	case Started, Orphan:
		return appendRecord(b, recStart, e.Key, "", at, int64(e.PID), int64(e.Start))
	case Exited:
		return appendRecord(b, recExit, e.Key, "", at, int64(e.Status), int64(e.Signal),
			e.Out.Size, e.Out.Dropped, e.Err.Size, e.Err.Dropped)
	case Failed:
		return appendRecord(b, recFail, e.Key, e.Reason, at, int64(e.Errno))
	case Lost:
		return appendRecord(b, recLost, e.Key, "", at, e.Out.Size, e.Out.Dropped, e.Err.Size, e.Err.Dropped)
	}
	return appendRecord(b, recAccept, e.Key, e.Job, at, int64(r.slot), r.max)
}

func appendTrim(b []byte, r *run) []byte {
	return appendRecord(b, recTrim, r.ev.Key, "", r.ev.Out.Dropped, r.ev.Err.Dropped)
}

// A record is a line of the log, read.
type record struct {
	op   byte
	key  Key
	nums [7]int64
	text string
	boot string // of B
}

// numbers is how many numbers follow the key of each kind of line.
func numbers(op byte) (n int, text, ok bool) {
	switch op {
	case recMark, recAck:
		return 0, false, true
	case recAccept:
		return 3, true, true
	case recStart:
		return 3, false, true
	case recTrim:
		return 2, false, true
	case recExit:
		return 7, false, true
	case recFail:
		return 2, true, true
	case recLost:
		return 5, false, true
	}
	return 0, false, false
}

var errGarbage = errors.New("not a line of the log")

// parseRecord reads a line without its newline.
func parseRecord(line string) (record, error) {
	f := fields{rest: line}
	op := f.word()
	if len(op) != 1 {
		return record{}, errGarbage
	}
	r := record{op: op[0]}
	if r.op == recBegin {
		r.boot = f.word()
		f.word()
		return r, f.end()
	}
	n, text, ok := numbers(r.op)
	if !ok {
		return record{}, errGarbage
	}
	r.key = Key{Pool: f.quoted(), Epoch: f.uint(), N: f.uint()}
	for i := range n {
		r.nums[i] = f.int()
	}
	if text {
		r.text = f.quoted()
	}
	return r, f.end()
}

// parseMark reads the key of a line that raises a mark, of any version.
func parseMark(line string) (Key, bool) {
	f := fields{rest: line}
	if op := f.word(); op != string(recMark) && op != string(recAccept) {
		return Key{}, false
	}
	k := Key{Pool: f.quoted(), Epoch: f.uint(), N: f.uint()}
	return k, !f.bad
}

// fields takes a line apart.
type fields struct {
	rest string
	bad  bool
}

func (f *fields) word() string {
	for i := range len(f.rest) {
		if f.rest[i] == fieldSpace {
			w := f.rest[:i]
			f.rest = f.rest[i+1:]
			return w
		}
	}
	w := f.rest
	f.rest = ""
	f.bad = f.bad || w == ""
	return w
}

func (f *fields) quoted() string {
	q, err := strconv.QuotedPrefix(f.rest)
	if err != nil {
		f.bad = true
		return ""
	}
	s, err := strconv.Unquote(q)
	f.bad = f.bad || err != nil
	f.rest = f.rest[len(q):]
	if f.rest != "" {
		f.bad = f.bad || f.rest[0] != fieldSpace
		f.rest = f.rest[1:]
	}
	return s
}

func (f *fields) uint() uint64 {
	n, err := strconv.ParseUint(f.word(), 10, 64)
	f.bad = f.bad || err != nil
	return n
}

func (f *fields) int() int64 {
	n, err := strconv.ParseInt(f.word(), 10, 64)
	f.bad = f.bad || err != nil
	return n
}

func (f *fields) end() error {
	if f.bad || f.rest != "" {
		return errGarbage
	}
	return nil
}

// apply brings the run that rec is about up to date.
func (rec *record) apply(r *run) {
	e, n := &r.ev, &rec.nums
	switch rec.op {
	case recTrim:
		e.Out.Dropped, e.Err.Dropped = n[0], n[1]
		return
	case recStart:
		e.Kind, e.PID, e.Start = Started, int(n[1]), ProcStart(n[2])
	case recExit:
		e.Kind, e.Status, e.Signal = Exited, int(n[1]), syscall.Signal(n[2])
		e.Signalled = true // it may have been: the log does not say
		e.Out.Size, e.Out.Dropped, e.Err.Size, e.Err.Dropped = n[3], n[4], n[5], n[6]
	case recFail:
		e.Kind, e.Errno, e.Reason = Failed, syscall.Errno(n[1]), rec.text
	case recLost:
		e.Kind = Lost
		e.Out.Size, e.Out.Dropped, e.Err.Size, e.Err.Dropped = n[1], n[2], n[3], n[4]
	}
	e.At = time.Unix(0, n[0])
}
