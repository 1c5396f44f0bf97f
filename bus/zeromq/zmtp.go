package zeromq

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// What a peer may send. Before it is known who it is, it may send little.
const (
	handshakeMax = 4 << 10 // bytes of one frame
	frameMax     = maxBody + 1<<10
	messageMax   = 8 << 20 // bytes of all frames
	framesMax    = 4096
)

// Flags of a frame (ZMTP 3.1).
const (
	flagMore    = 1
	flagLong    = 2
	flagCommand = 4
)

const greetingSize = 64

// greeting is the first thing that either side says.
func greeting(mechanism string, server bool) []byte {
	g := make([]byte, greetingSize)
	g[0], g[9] = 0xff, 0x7f
	g[10], g[11] = 3, 1
	copy(g[12:32], mechanism)
	if server {
		g[32] = 1
	}
	return g
}

// readGreeting returns the peer's mechanism.
func readGreeting(r *bufio.Reader) (mechanism string, err error) {
	g := make([]byte, greetingSize)
	if _, err := io.ReadFull(r, g[:1]); err != nil {
		return "", err
	}
	if g[0] != 0xff { // it does not wait for more from us
		head, _ := r.Peek(min(r.Buffered(), 40))
		return "", &notZMTP{append(g[:1:1], head...)}
	}
	if _, err := io.ReadFull(r, g[1:11]); err != nil {
		return "", err
	}
	if g[9]&1 != 1 || g[10] < 3 {
		return "", errors.New("it speaks an old ZMTP; libzmq 4 or later is needed")
	}
	if _, err := io.ReadFull(r, g[11:]); err != nil {
		return "", err
	}
	n := 12
	for n < 32 && g[n] != 0 {
		n++
	}
	return string(g[12:n]), nil
}

// notZMTP is the error of a peer that is something else.
type notZMTP struct{ said []byte }

func (e *notZMTP) Error() string {
	return fmt.Sprintf("what answers there does not speak ZMTP, it says %q", e.said)
}

// frame is one on the wire.
type frame struct {
	flags byte
	data  []byte
}

// readFrame reads one of at most max bytes.
func readFrame(r *bufio.Reader, max int) (frame, error) {
	flags, err := r.ReadByte()
	if err != nil {
		return frame{}, err
	}
	var size uint64
	if flags&flagLong != 0 {
		var b [8]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return frame{}, unexpected(err)
		}
		size = binary.BigEndian.Uint64(b[:])
	} else {
		b, err := r.ReadByte()
		if err != nil {
			return frame{}, unexpected(err)
		}
		size = uint64(b)
	}
	if flags&^(flagMore|flagLong|flagCommand) != 0 || size > uint64(max) {
		return frame{}, fmt.Errorf("a frame with flags %#x and %d bytes: %w", flags, size, errFrame)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return frame{}, unexpected(err)
	}
	return frame{flags, data}, nil
}

var errFrame = errors.New("not a frame that may come here")

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeFrame(w *bufio.Writer, f frame) error {
	var head [9]byte
	n := 2
	head[0], head[1] = f.flags, byte(len(f.data))
	if len(f.data) > 255 {
		n = 9
		head[0] |= flagLong
		binary.BigEndian.PutUint64(head[1:], uint64(len(f.data)))
	}
	if _, err := w.Write(head[:n]); err != nil {
		return err
	}
	_, err := w.Write(f.data)
	return err
}

// command makes the data of a command's frame.
func command(name string, body ...[]byte) []byte {
	b := append([]byte{byte(len(name))}, name...)
	for _, p := range body {
		b = append(b, p...)
	}
	return b
}

// splitCommand takes a command's frame apart.
func splitCommand(data []byte) (name string, body []byte, err error) {
	if len(data) == 0 || len(data) < 1+int(data[0]) {
		return "", nil, errFrame
	}
	n := 1 + int(data[0])
	return string(data[1:n]), data[n:], nil
}

// metadata names our kind of socket.
func metadata(socket string) []byte {
	var b []byte
	for _, p := range [][2]string{{"Socket-Type", socket}, {"Identity", ""}} {
		b = append(b, byte(len(p[0])))
		b = append(b, p[0]...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(p[1])))
		b = append(b, p[1]...)
	}
	return b
}

// A pipe is a connection over which frames of a greeted peer come and go.
type pipe struct {
	net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	seal sealer // nil where nothing is encrypted
}

// sealer turns frames into those of the mechanism and back.
type sealer interface {
	seal(frame) frame
	open(frame) (frame, error)
}

func newPipe(c net.Conn) *pipe {
	return &pipe{Conn: c, r: bufio.NewReaderSize(c, 16<<10), w: bufio.NewWriterSize(c, 16<<10)}
}

func (p *pipe) write(f frame) error {
	if p.seal != nil {
		f = p.seal.seal(f)
	}
	return writeFrame(p.w, f)
}

func (p *pipe) read() (frame, error) {
	f, err := readFrame(p.r, frameMax)
	if err == nil && p.seal != nil {
		f, err = p.seal.open(f)
	}
	return f, err
}

// say writes a command of the handshake.
func (p *pipe) say(name string, body ...[]byte) error {
	if err := writeFrame(p.w, frame{flagCommand, command(name, body...)}); err != nil {
		return err
	}
	return p.w.Flush()
}

// hear reads the command of the handshake that must come now.
func (p *pipe) hear(name string) ([]byte, error) {
	f, err := readFrame(p.r, handshakeMax)
	if err != nil {
		return nil, err
	}
	if f.flags&flagCommand == 0 {
		return nil, errFrame
	}
	got, body, err := splitCommand(f.data)
	switch {
	case err != nil:
		return nil, err
	case got == "ERROR" && len(body) > 0:
		return nil, &refused{printable(body[1:])}
	case got != name:
		return nil, fmt.Errorf("command %q in place of %s: %w", printable([]byte(got)), name, errFrame)
	}
	return body, nil
}

// refused is what the peer says about a handshake that it does not go on with.
type refused struct{ reason string }

func (e *refused) Error() string { return "refused: " + e.reason }

// deny tells the peer why it is not let in.
func (p *pipe) deny(reason string) {
	p.SetWriteDeadline(time.Now().Add(time.Second))
	_ = p.say("ERROR", []byte{byte(len(reason))}, []byte(reason))
}

func printable(b []byte) string {
	s := make([]rune, 0, len(b))
	for _, r := range string(b[:min(len(b), 200)]) {
		if r < ' ' || r == 0x7f {
			r = '.'
		}
		s = append(s, r)
	}
	return string(s)
}

// handshake makes the peers known to each other. own is nil for the mechanism
// NULL. The returned key is the peer's where the mechanism is CURVE.
func (p *pipe) handshake(server bool, own *curve) (peer key, err error) {
	mechanism, socket := "NULL", "DEALER"
	if own != nil {
		mechanism = "CURVE"
	}
	if server {
		socket = "ROUTER"
	}
	if _, err := p.w.Write(greeting(mechanism, server && own != nil)); err != nil {
		return peer, err
	}
	if err := p.w.Flush(); err != nil {
		return peer, err
	}
	theirs, err := readGreeting(p.r)
	if err != nil {
		return peer, err
	}
	if theirs != mechanism {
		return peer, &otherMechanism{theirs: theirs, ours: mechanism}
	}
	switch {
	case own != nil && server:
		return own.serve(p, metadata(socket))
	case own != nil:
		return own.server, own.join(p, metadata(socket))
	}
	if err := p.say("READY", metadata(socket)); err != nil {
		return peer, err
	}
	_, err = p.hear("READY")
	return peer, err
}

// otherMechanism is the error of peers that do not agree on one.
type otherMechanism struct{ theirs, ours string }

func (e *otherMechanism) Error() string {
	return fmt.Sprintf("the mechanism there is %s, here it is %s", printable([]byte(e.theirs)), e.ours)
}
