package runner

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

// The protocol. Both sides begin with a line of text that every version can
// read:
//
//	cbsdmq-agent PROTOCOL
//	cbsdmq-runner PROTOCOL RUNNER-ID BOOT-ID PID VERSION
//
// Then come frames: length of the rest (4 bytes, big endian), type (1 byte),
// fields. Numbers are varints as in encoding/binary, a string is its length
// and its bytes, a list its length and its elements.
const (
	frameStart    = 'S' // agent: starts
	frameAck      = 'A' // agent: keys
	frameList     = 'L' // agent: request, pool
	frameKill     = 'K' // agent: request, key, signal
	frameOutput   = 'O' // agent: request, key
	frameEvents   = 'E' // runner: events
	frameSnapshot = 'l' // runner: request, snapshot
	frameResult   = 'r' // runner: request, error text or ""
	frameFiles    = 'o' // runner: request, two files
)

// The flags of an event.
const (
	flagTemporary = 1 << iota
	flagSignalled
)

// maxFrame bounds a frame: far above the largest command line that execve
// takes, far below what would hurt.
const maxFrame = 16 << 20

var errShort = errors.New("frame ends in the middle")

// readFrame reads one frame into buf, which it may replace by a larger one, and
// returns type and fields.
func readFrame(r *bufio.Reader, buf []byte) (typ byte, body, next []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, buf, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || n > maxFrame {
		return 0, nil, buf, fmt.Errorf("frame of %d bytes", n)
	}
	n--
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	body = buf[:n]
	_, err = io.ReadFull(r, body)
	return head[4], body, buf, err
}

// beginFrame appends the head of a frame to b; endFrame fills in the length of
// the frame that begins at position at.
func beginFrame(b []byte, typ byte) []byte { return append(b, 0, 0, 0, 0, typ) }

func endFrame(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(b, t.UnixNano())
}

func appendKey(b []byte, k Key) []byte {
	b = appendString(b, k.Pool)
	b = binary.AppendUvarint(b, k.Epoch)
	return binary.AppendUvarint(b, k.N)
}

func appendStart(b []byte, s *Start) []byte {
	b = appendKey(b, s.Key)
	b = appendString(b, s.Job)
	b = appendString(b, s.Path)
	b = appendStrings(b, s.Args)
	b = appendStrings(b, s.Env)
	b = appendString(b, s.Dir)
	return binary.AppendVarint(b, s.OutputMax)
}

func appendFile(b []byte, f File) []byte {
	b = appendString(b, f.Path)
	b = binary.AppendVarint(b, f.Size)
	return binary.AppendVarint(b, f.Dropped)
}

func appendEvent(b []byte, e *Event) []byte {
	b = appendKey(b, e.Key)
	b = append(b, byte(e.Kind))
	b = appendString(b, e.Job)
	b = binary.AppendVarint(b, int64(e.PID))
	b = binary.AppendVarint(b, int64(e.Start))
	b = binary.AppendVarint(b, int64(e.Status))
	b = binary.AppendVarint(b, int64(e.Signal))
	b = binary.AppendUvarint(b, uint64(e.Errno))
	var flags byte
	if e.Temporary {
		flags |= flagTemporary
	}
	if e.Signalled {
		flags |= flagSignalled
	}
	b = append(b, flags)
	b = appendFile(b, e.Out)
	b = appendFile(b, e.Err)
	b = appendString(b, e.Reason)
	return appendTime(b, e.At)
}

func appendSnapshot(b []byte, s *Snapshot) []byte {
	b = appendKey(b, s.Mark)
	b = binary.AppendUvarint(b, uint64(len(s.Runs)))
	for i := range s.Runs {
		b = appendEvent(b, &s.Runs[i])
	}
	return b
}

// A decoder takes the fields of a frame apart. Its strings share the memory of
// the frame. After the first field that is not there every further one is zero,
// and err says so.
type decoder struct {
	s   string
	err error
}

// decode returns a decoder of the fields in body, which may be used again.
func decode(body []byte) *decoder { return &decoder{s: string(body)} }

func (d *decoder) fail() {
	d.s, d.err = "", errShort
}

func (d *decoder) byte() byte {
	if d.s == "" {
		d.fail()
		return 0
	}
	c := d.s[0]
	d.s = d.s[1:]
	return c
}

func (d *decoder) uint() uint64 {
	var v uint64
	for i := 0; i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		c := d.s[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			return v
		}
	}
	d.fail()
	return 0
}

func (d *decoder) int() int64 {
	v := d.uint()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads the length of a list whose elements take at least one byte each,
// so that a wrong one cannot ask for more memory than the frame has.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.s)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.count()
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *decoder) strings() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.string())
	}
	return list
}

func (d *decoder) time() time.Time {
	ns := d.int()
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func (d *decoder) key() Key {
	return Key{Pool: d.string(), Epoch: d.uint(), N: d.uint()}
}

func (d *decoder) start() Start {
	return Start{
		Key: d.key(), Job: d.string(), Path: d.string(), Args: d.strings(),
		Env: d.strings(), Dir: d.string(), OutputMax: d.int(),
	}
}

func (d *decoder) file() File {
	return File{Path: d.string(), Size: d.int(), Dropped: d.int()}
}

func (d *decoder) event() Event {
	e := Event{
		Key: d.key(), Kind: Kind(d.byte()), Job: d.string(), PID: int(d.int()), Start: ProcStart(d.int()),
		Status: int(d.int()), Signal: syscall.Signal(d.int()), Errno: syscall.Errno(d.uint()),
	}
	flags := d.byte()
	e.Temporary, e.Signalled = flags&flagTemporary != 0, flags&flagSignalled != 0
	e.Out, e.Err, e.Reason, e.At = d.file(), d.file(), d.string(), d.time()
	return e
}

func (d *decoder) events() []Event {
	n := d.count()
	var list []Event
	for range n {
		e := d.event()
		if d.err != nil {
			return nil
		}
		list = append(list, e)
	}
	return list
}
