// Package senders knows who may send jobs to a pool: the public keys of those who
// sign, and what each key may do.
//
// A file of senders has a line for each key:
//
//	# name  public key                                            what it may do
//	shop    ed25519:1+8D...=  pools=pool1 commands=bstart,bstop,bls guests=web*
//	shop    ed25519:Zk0q...=  pools=* commands=* guests=* not_after=2027-03-01
//
// pools, commands and guests are lists of names or patterns (* ? [a-z]) and must be
// there: * is everything. A sender may have several keys, each with rights of its
// own. A key whose line is taken away is revoked.
package senders

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

const (
	algorithm = "ed25519:"
	// keysMax bounds the keys of one sender: what is signed by none of them is
	// tried with each.
	keysMax = 16
)

// A Key is one public key of a sender, with what it may do.
type Key struct {
	Name     string // of the sender
	Public   ed25519.PublicKey
	NotAfter time.Time // zero: no end

	pools, commands, guests []string
}

// ID is the public key as text.
func (k *Key) ID() string { return ID(k.Public) }

// ID is a public key as text.
func ID(public ed25519.PublicKey) string {
	return algorithm + base64.StdEncoding.EncodeToString(public)
}

// All reports whether the key may do everything in the pools that it is for.
func (k *Key) All() bool { return everything(k.commands) && everything(k.guests) }

// MayPool reports whether the key is for a pool.
func (k *Key) MayPool(pool string) bool { return matches(k.pools, pool) }

// MayCommand reports whether the key is for a command.
func (k *Key) MayCommand(command string) bool { return matches(k.commands, command) }

// MayGuests reports whether the key is for all of the guests.
func (k *Key) MayGuests(guests ...string) bool {
	return !slices.ContainsFunc(guests, func(g string) bool { return !matches(k.guests, g) })
}

// AllGuests reports whether the key is for every guest, and so for what is not
// about one.
func (k *Key) AllGuests() bool { return everything(k.guests) }

func everything(list []string) bool { return slices.Contains(list, "*") }

// matches reports whether a pattern of the list matches name. Patterns were
// checked when they were read.
func matches(list []string, name string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if pattern == "*" {
			return true
		}
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// A Set is the keys of a file or directory of senders.
type Set struct {
	byName map[string][]*Key
	byID   map[string]*Key
}

// Key returns the key with this ID, nil where it is not in the set: it was
// revoked.
func (s *Set) Key(id string) *Key { return s.byID[id] }

// Len is the number of keys.
func (s *Set) Len() int { return len(s.byID) }

// Verify returns the key of the sender name that made the signature sig of text,
// at the time now. An *cbsdmq.Error names field and says what is wrong.
func (s *Set) Verify(field, name, sig string, text []byte, now time.Time) (*Key, error) {
	keys := s.byName[name]
	if len(keys) == 0 {
		return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, field+"signer", "no key of %q is known here", shorten(name)).
			WithHint("put its public line into the file that the agent's key \"senders\" names, and reload the agent")
	}
	for _, k := range keys {
		if !cbsdmq.Signed(k.Public, text, sig) {
			continue
		}
		if !k.NotAfter.IsZero() && now.After(k.NotAfter) {
			return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, field+"sig", "the key of %s was good until %s", name, k.NotAfter.UTC().Format(time.RFC3339)).
				WithHint("make a new one with `cbsdmq keygen`; if it should be good still, look at the clocks: here it is %s", now.UTC().Format(time.RFC3339))
		}
		return k, nil
	}
	return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, field+"sig", "not a signature of this by a key of %s that is known here", name).
		WithHint("either it was changed on its way, or the sender signs with another key than the agent knows of it")
}

func shorten(s string) string {
	const most = 64
	return strings.ToValidUTF8(s[:min(len(s), most)], "?")
}

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// ValidName reports whether a sender can be called so.
func ValidName(s string) bool { return name.MatchString(s) }

// Parse reads the text of a file of senders.
func Parse(text string) (*Set, error) {
	s := &Set{byName: make(map[string][]*Key), byID: make(map[string]*Key)}
	return s, s.add("", text)
}

func (s *Set) add(file, text string) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		k, err := parseKey(words)
		if err == nil {
			err = s.take(k)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", file, n, err)
		}
	}
	return nil
}

func (s *Set) take(k *Key) error {
	if other := s.byID[k.ID()]; other != nil {
		return bad("the key is in the line of %s already", other.Name).WithHint("each line has a key of its own: make one with `cbsdmq keygen`")
	}
	if len(s.byName[k.Name]) >= keysMax {
		return bad("%s has more than %d keys", k.Name, keysMax).WithHint("take away those that are not used any more")
	}
	s.byName[k.Name] = append(s.byName[k.Name], k)
	s.byID[k.ID()] = k
	return nil
}

const lineHint = "a line looks like: shop ed25519:... pools=pool1 commands=bstart,bstop guests=web*; `cbsdmq keygen` prints one"

// parseKey reads a line. What it does not know is an error: it may be meant to
// forbid something.
func parseKey(words []string) (*Key, error) {
	if len(words) < 2 {
		return nil, bad("not a line of a sender").WithHint(lineHint)
	}
	k := &Key{Name: words[0]}
	if !ValidName(k.Name) {
		return nil, bad("%q is not the name of a sender", shorten(k.Name)).WithHint("letters, digits and . _ @ -, at most 64")
	}
	var err error
	if k.Public, err = parsePublic(words[1]); err != nil {
		return nil, err
	}
	lists := map[string]*[]string{"pools": &k.pools, "commands": &k.commands, "guests": &k.guests}
	given := make(map[string]bool)
	for _, w := range words[2:] {
		option, value, _ := strings.Cut(w, "=")
		if given[option] {
			return nil, bad("%s= comes twice", shorten(option)).WithHint("write one list, with commas")
		}
		given[option] = true
		switch list := lists[option]; {
		case list != nil:
			*list, err = parseList(option, value)
		case option == "not_after":
			k.NotAfter, err = parseTime(value)
		default:
			err = bad("%q is not known here", shorten(w)).WithHint("pools=, commands=, guests= and not_after= are")
		}
		if err != nil {
			return nil, err
		}
	}
	for _, option := range []string{"pools", "commands", "guests"} {
		if !given[option] {
			return nil, bad("%s= is missing", option).WithHint("name what the key is for, or write %s=* for everything", option)
		}
	}
	return k, nil
}

func parsePublic(text string) (ed25519.PublicKey, error) {
	encoded, ok := strings.CutPrefix(text, algorithm)
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, bad("the second word is not a public key").WithHint(lineHint) // not the word: it may be a secret
	}
	return raw, nil
}

func parseList(option, value string) ([]string, error) {
	list := strings.Split(value, ",")
	if value == "" {
		return nil, nil // none
	}
	for _, pattern := range list {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return nil, bad("%s=: %q is not a name or pattern", option, shorten(pattern)).WithHint("names with * ? and [a-z], separated by commas, without spaces")
		}
	}
	return list, nil
}

func parseTime(value string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, value); err == nil {
		return t.Add(24*time.Hour - time.Second), nil // the day included
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return t, bad("not_after=: not a time").WithHint("2027-03-01, which is included, or 2027-03-01T12:00:00Z")
	}
	return t, nil
}

func bad(format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "senders", format, args...)
}

// Line is the line of a new key for a file of senders, with every right.
func Line(name string, public ed25519.PublicKey) string {
	return name + " " + ID(public) + " pools=* commands=* guests=*"
}
