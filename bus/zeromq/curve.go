package zeromq

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/nacl/box"
)

// curve is the mechanism CURVE (RFC 26 of ZeroMQ) for one side.
type curve struct {
	public, secret key
	server         key // of a client: the agent's public key

	// admit says whether an agent lets the owner of the key in.
	admit func(key) error
}

// Sizes of the commands' parts.
const (
	longNonce  = 16
	shortNonce = 8
	cookieSize = 96
	sealSize   = box.Overhead
)

// unknownKey is what ZeroMQ says to a client that is not let in.
const unknownKey = "400"

var errCurve = errors.New("it does not hold the key that belongs to this one, or the message was changed")

// nonce is a prefix with what is appended.
func nonce(prefix string, rest []byte) *[24]byte {
	var n [24]byte
	copy(n[copy(n[:], prefix):], rest)
	return &n
}

// counter is the nonce of the n-th command.
func counter(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// join is the client's side.
func (c *curve) join(p *pipe, meta []byte) error {
	cPub, cSec, err := box.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	n := counter(1)
	hello := append([]byte{1, 0}, make([]byte, 72)...)
	hello = append(hello, cPub[:]...)
	hello = append(hello, n...)
	hello = box.Seal(hello, make([]byte, 64), nonce("CurveZMQHELLO---", n), c.server.bytes(), cSec)
	if err := p.say("HELLO", hello); err != nil {
		return err
	}
	welcome, err := p.hear("WELCOME")
	if err != nil {
		return err
	}
	if len(welcome) != longNonce+32+cookieSize+sealSize {
		return errFrame
	}
	open, ok := box.Open(nil, welcome[longNonce:], nonce("WELCOME-", welcome[:longNonce]), c.server.bytes(), cSec)
	if !ok {
		return errCurve
	}
	sPub := (*[32]byte)(open[:32])
	s := &session{in: "CurveZMQMESSAGES", out: "CurveZMQMESSAGEC", sent: 2}
	box.Precompute(&s.shared, sPub, cSec)
	vouchNonce := random(longNonce)
	vouch := box.Seal(nil, append(cPub[:], c.server[:]...), nonce("VOUCH---", vouchNonce), sPub, c.secret.bytes())
	plain := append(append(append(c.public[:], vouchNonce...), vouch...), meta...)
	n = counter(2)
	initiate := append(append(open[32:], n...), box.SealAfterPrecomputation(nil, plain, nonce("CurveZMQINITIATE", n), &s.shared)...)
	if err := p.say("INITIATE", initiate); err != nil {
		return err
	}
	ready, err := p.hear("READY")
	if err != nil {
		return err
	}
	if len(ready) < shortNonce {
		return errFrame
	}
	if _, ok := box.OpenAfterPrecomputation(nil, ready[shortNonce:], nonce("CurveZMQREADY---", ready[:shortNonce]), &s.shared); !ok {
		return errCurve
	}
	s.seen = binary.BigEndian.Uint64(ready[:shortNonce])
	p.seal = s
	return nil
}

// serve is the agent's side. It keeps in memory what the cookie is for, so its
// cookie is but a random number.
func (c *curve) serve(p *pipe, meta []byte) (client key, err error) {
	hello, err := p.hear("HELLO")
	if err != nil {
		return client, err
	}
	if len(hello) != 2+72+32+shortNonce+64+sealSize || hello[0] != 1 {
		return client, errFrame
	}
	cPub := (*[32]byte)(hello[74:106])
	n := hello[106:114]
	if _, ok := box.Open(nil, hello[114:], nonce("CurveZMQHELLO---", n), cPub, c.secret.bytes()); !ok {
		p.deny("the agent has another key than the one in curve_server")
		return client, errCurve
	}
	sPub, sSec, err := box.GenerateKey(rand.Reader)
	if err != nil {
		return client, err
	}
	cookie, wn := random(cookieSize), random(longNonce)
	if err := p.say("WELCOME", wn, box.Seal(nil, append(sPub[:], cookie...), nonce("WELCOME-", wn), cPub, c.secret.bytes())); err != nil {
		return client, err
	}
	s := &session{in: "CurveZMQMESSAGEC", out: "CurveZMQMESSAGES", sent: 1}
	box.Precompute(&s.shared, cPub, sSec)
	initiate, err := p.hear("INITIATE")
	if err != nil {
		return client, err
	}
	const vouchSize = 64 + sealSize
	if len(initiate) < cookieSize+shortNonce+sealSize || subtle.ConstantTimeCompare(initiate[:cookieSize], cookie) != 1 {
		return client, errFrame
	}
	n = initiate[cookieSize : cookieSize+shortNonce]
	plain, ok := box.OpenAfterPrecomputation(nil, initiate[cookieSize+shortNonce:], nonce("CurveZMQINITIATE", n), &s.shared)
	if !ok || len(plain) < 32+longNonce+vouchSize {
		return client, errCurve
	}
	s.seen = binary.BigEndian.Uint64(n)
	client = key(plain[:32])
	vn := plain[32 : 32+longNonce]
	vouch, ok := box.Open(nil, plain[32+longNonce:32+longNonce+vouchSize], nonce("VOUCH---", vn), client.bytes(), sSec)
	if !ok || subtle.ConstantTimeCompare(vouch, append(cPub[:], c.public[:]...)) != 1 {
		return client, errCurve
	}
	if err := c.admit(client); err != nil {
		p.deny(unknownKey)
		return client, err
	}
	n = counter(1)
	if err := p.say("READY", n, box.SealAfterPrecomputation(nil, meta, nonce("CurveZMQREADY---", n), &s.shared)); err != nil {
		return client, err
	}
	p.seal = s
	return client, nil
}

// session encrypts what follows the handshake. One goroutine seals and one
// opens.
type session struct {
	shared  [32]byte
	in, out string
	sent    uint64 // last number given
	seen    uint64 // last number taken
}

const messageName = "\x07MESSAGE"

func (s *session) seal(f frame) frame {
	s.sent++
	n := counter(s.sent)
	plain := make([]byte, 1, 1+len(f.data))
	plain[0] = f.flags & flagMore
	if f.flags&flagCommand != 0 {
		plain[0] |= 2
	}
	out := make([]byte, 0, len(messageName)+len(n)+1+len(f.data)+sealSize)
	out = append(append(out, messageName...), n...)
	return frame{data: box.SealAfterPrecomputation(out, append(plain, f.data...), nonce(s.out, n), &s.shared)}
}

func (s *session) open(f frame) (frame, error) {
	const head = len(messageName) + shortNonce
	if len(f.data) < head+1+sealSize || string(f.data[:len(messageName)]) != messageName {
		return frame{}, errFrame
	}
	n := f.data[len(messageName):head]
	number := binary.BigEndian.Uint64(n)
	if number <= s.seen { // sent again by somebody else
		return frame{}, errCurve
	}
	plain, ok := box.OpenAfterPrecomputation(nil, f.data[head:], nonce(s.in, n), &s.shared)
	if !ok {
		return frame{}, errCurve
	}
	s.seen = number
	flags := plain[0] & flagMore
	if plain[0]&2 != 0 {
		flags |= flagCommand
	}
	return frame{flags, plain[1:]}, nil
}
