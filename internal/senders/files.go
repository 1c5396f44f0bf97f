package senders

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cbsd/cbsdmq"
)

// fileMax bounds what is read: it is room for thousands of keys.
const fileMax = 1 << 20

// Load reads a file of senders, or every file in a directory whose name does not
// begin with a dot. Who may write there says who may run what, so that others than
// its owner can is an error.
func Load(name string) (*Set, error) {
	s := &Set{byName: make(map[string][]*Key), byID: make(map[string]*Key)}
	info, err := os.Stat(name)
	if err != nil {
		return nil, unreadable(err)
	}
	files := []string{name}
	if info.IsDir() {
		if err := checkWriters(name, info); err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, unreadable(err)
		}
		files = nil
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
				files = append(files, filepath.Join(name, e.Name()))
			}
		}
	}
	for _, file := range files {
		text, info, err := read(file)
		if err != nil {
			return nil, unreadable(err)
		}
		if err := checkWriters(file, info); err != nil {
			return nil, err
		}
		if err := s.add(file, text); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func unreadable(err error) error {
	e := bad("%w", err)
	if errors.Is(err, fs.ErrNotExist) {
		e.Hint = "make it, with a line for each key: `cbsdmq keygen` prints one"
	}
	return e
}

func checkWriters(name string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	return bad("%s: others can write to it, and so say what an agent runs (mode %04o)", name, info.Mode().Perm()).
		WithHint("chmod go-w %s", name)
}

// read reads a file that has a reasonable size.
func read(name string) (string, fs.FileInfo, error) {
	// A pipe without a writer would never be opened.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err == nil && len(text) > fileMax {
		err = fmt.Errorf("%s: longer than %d bytes", name, fileMax)
	}
	return string(text), info, err
}

const secret = "ed25519-secret:"

// Make makes a key for the sender name in a new file that only its owner may
// read, and returns its public half. A file that is there stays as it is.
func Make(name, file string) (ed25519.PublicKey, error) {
	if !ValidName(name) {
		return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, "NAME", "%q is not the name of a sender", shorten(name)).
			WithHint("letters, digits and . _ @ -, at most 64")
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, "FILE", "%s is there already", file).
			WithHint("a key that is overwritten is lost: choose another name, or remove it yourself")
	}
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "# a secret key that signs jobs of cbsdmq: whoever has it can send them as %s\n%s %s%s\n",
		name, name, secret, base64.StdEncoding.EncodeToString(private.Seed()))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(file)
		return nil, err
	}
	return public, nil
}

// LoadSigner reads a secret key that Make has made. An *cbsdmq.Error names field.
func LoadSigner(field, file string) (*cbsdmq.Signer, error) {
	wrong := func(format string, args ...any) *cbsdmq.Error {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, field, format, args...)
	}
	text, info, err := read(file)
	if err != nil {
		e := wrong("%w", err)
		if errors.Is(err, fs.ErrNotExist) {
			e.Hint = "`cbsdmq keygen` makes one"
		}
		return nil, e
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		return nil, wrong("%s: everybody can read the key in it (mode %04o)", file, info.Mode().Perm()).WithHint("chmod o= %s", file)
	}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) == 2 && ValidName(words[0]) {
			encoded, ok := strings.CutPrefix(words[1], secret)
			seed, err := base64.StdEncoding.Strict().DecodeString(encoded)
			if ok && err == nil && len(seed) == ed25519.SeedSize {
				return &cbsdmq.Signer{Name: words[0], Key: ed25519.NewKeyFromSeed(seed)}, nil
			}
		}
		break
	}
	return nil, wrong("%s holds no secret key", file).WithHint("`cbsdmq keygen` makes one; its public line belongs into the agent's file of senders")
}
