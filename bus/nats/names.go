package nats

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cbsd/cbsdmq/bus"
)

// What the driver keeps on the server. The names are part of the protocol
// between clients and agents of different versions.
const (
	queuePrefix   = "cbsdmq_q_"   // + token: the stream of one queue
	queueSubject  = "cbsdmq.q."   // + token
	mailStream    = "cbsdmq_mail" // the one stream of all mailboxes
	mailSubject   = "cbsdmq.m."   // + token
	queueConsumer = "cbsdmq"      // shared by all consumers of a queue
	mailConsumer  = "m_"          // + token
	hereSubject   = "cbsdmq.here" // + the subject of a tube: its consumers answer
	keepSubject   = "cbsdmq.keep" // + .q. + token, or .m: see conn.keep
)

const (
	maxTube  = 200 // bytes, as package bus says
	maxToken = 200 // a stream's name, with the prefix, is the name of a directory
)

// place is where the messages of a tube are.
type place struct {
	kind     bus.Kind
	stream   string
	subject  string
	keeper   string // subject, see conn.keep
	consumer string
}

// placeOf returns an error only for a name that is bus.ErrBadTube.
func placeOf(t bus.Tube) (place, error) {
	k, err := token(t.Name)
	if err != nil {
		return place{}, err
	}
	if t.Kind == bus.Mailbox {
		return place{bus.Mailbox, mailStream, mailSubject + k, keepSubject + ".m", mailConsumer + k}, nil
	}
	return place{bus.Queue, queuePrefix + k, queueSubject + k, keepSubject + ".q." + k, queueConsumer}, nil
}

func (p place) here() string { return hereSubject + strings.TrimPrefix(p.subject, "cbsdmq") }

// token maps a tube's name to one token of a subject that is also good for the
// name of a stream or a consumer, different names to different tokens: letters,
// digits, _ and - stand for themselves, . and : are =2E and =3A. What gets too
// long by that is cut and ends in == and a hash of the whole.
func token(name string) (string, error) {
	if name == "" || len(name) > maxTube {
		return "", fmt.Errorf("%w: %q", bus.ErrBadTube, name)
	}
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
			b.WriteByte(c)
		case c == '.' || c == ':':
			fmt.Fprintf(&b, "=%02X", c)
		default:
			return "", fmt.Errorf("%w: %q", bus.ErrBadTube, name)
		}
	}
	t := b.String()
	if len(t) <= maxToken {
		return t, nil
	}
	sum := sha256.Sum256([]byte(name))
	end := "==" + hex.EncodeToString(sum[:])
	return t[:maxToken-len(end)] + end, nil
}

// tubeOf is the inverse of token. A token that was cut does not say its tube.
func tubeOf(token string) (name string, ok bool) {
	if strings.Contains(token, "==") {
		return "", false
	}
	return strings.NewReplacer("=2E", ".", "=3A", ":").Replace(token), true
}
