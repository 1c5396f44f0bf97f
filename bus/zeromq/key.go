package zeromq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/curve25519"
)

// key is a key of CURVE, public or secret.
type key [32]byte

func (k *key) bytes() *[32]byte { return (*[32]byte)(k) }

// z85 is the alphabet of ZeroMQ's RFC 32.
const z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

const keySize = 40 // characters of a key

// String is the key as ZeroMQ's tools write it.
func (k key) String() string {
	var s [keySize]byte
	for i := range 8 {
		n := binary.BigEndian.Uint32(k[4*i:])
		for j := 4; j >= 0; j-- {
			s[5*i+j] = z85[n%85]
			n /= 85
		}
	}
	return string(s[:])
}

func parseKey(s string) (k key, err error) {
	if len(s) != keySize {
		return k, fmt.Errorf("a key has %d characters, not %d", keySize, len(s))
	}
	for i := range 8 {
		var n uint64
		for _, c := range []byte(s[5*i : 5*i+5]) {
			v := strings.IndexByte(z85, c)
			if v < 0 {
				return k, fmt.Errorf("a key has no character %q", c)
			}
			n = n*85 + uint64(v)
		}
		if n > 1<<32-1 {
			return k, errors.New("not a key")
		}
		binary.BigEndian.PutUint32(k[4*i:], uint32(n))
	}
	return k, nil
}

// public is the key that belongs to a secret one.
func (k key) public() (key, error) {
	p, err := curve25519.X25519(k[:], curve25519.Basepoint)
	if err != nil {
		return key{}, err
	}
	return key(p), nil
}

// readKeys reads the keys of a file: the first word of each line, but for
// comments, which begin with #.
func readKeys(file string) ([]key, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []key
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) == 0 || isComment(f[0]) {
			continue
		}
		k, err := parseKey(f[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err) // not the line: it may be a secret
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// isComment tells a comment from a key that begins with #, as one may.
func isComment(word string) bool { return word[0] == '#' && len(word) != keySize }

// KeyPair makes a pair of keys as ZeroMQ's tools write them.
func KeyPair() (public, secret string, err error) {
	s := key(random(len(key{})))
	p, err := s.public()
	return p.String(), s.String(), err
}

// PublicKey is the public key that belongs to the secret one in file.
func PublicKey(file string) (string, error) {
	c, err := loadSecret(file)
	if err != nil {
		return "", err
	}
	return c.public.String(), nil
}

func loadSecret(file string) (*curve, error) {
	keys, err := readKeys(file)
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("%s has %d keys, not one", file, len(keys))
	}
	public, err := keys[0].public()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &curve{public: public, secret: keys[0]}, nil
}
