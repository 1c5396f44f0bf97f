// Package freebsdpkg writes packages for pkg(8) on any system.
//
// A package is a tar file, compressed with zstd, whose first two members are the
// manifests: +COMPACT_MANIFEST with what pkg(8) shows, +MANIFEST with files,
// sums and scripts too. Both are JSON, in which texts have % and what is not
// ASCII as in a URL. Then come the files under their absolute paths. The same
// Package gives the same bytes.
package freebsdpkg

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A File is installed with that mode, owned by root and wheel.
type File struct {
	Path string // absolute
	Mode int64
	Data []byte
}

// A Package is what is written. Scripts are by their names in the manifest, such
// as "post-install"; Messages by when they are shown: "install", "upgrade",
// "remove".
type Package struct {
	Name, Version, Origin string
	Comment, Desc         string
	WWW, Maintainer       string
	License               string // by its name in the ports: BSD2CLAUSE
	Categories            []string
	ABI                   string // FreeBSD:14:amd64
	Prefix                string
	Files                 []File
	Directories           []string // removed with the package where they are empty
	Scripts               map[string]string
	Messages              map[string]string
	Modified              time.Time // of every member
}

type message struct {
	Message string `json:"message"`
	Type    string `json:"type"`
}

// manifest is +COMPACT_MANIFEST, and with the last three +MANIFEST.
type manifest struct {
	Name         string            `json:"name"`
	Origin       string            `json:"origin"`
	Version      string            `json:"version"`
	Comment      string            `json:"comment"`
	Maintainer   string            `json:"maintainer"`
	WWW          string            `json:"www"`
	ABI          string            `json:"abi"`
	Arch         string            `json:"arch"`
	Prefix       string            `json:"prefix"`
	FlatSize     int64             `json:"flatsize"`
	LicenseLogic string            `json:"licenselogic"`
	Licenses     []string          `json:"licenses"`
	Desc         string            `json:"desc"`
	Categories   []string          `json:"categories"`
	Messages     []message         `json:"messages,omitempty"`
	Files        map[string]string `json:"files,omitempty"`
	Directories  map[string]string `json:"directories,omitempty"`
	Scripts      map[string]string `json:"scripts,omitempty"`
}

var versionText = regexp.MustCompile(`^[0-9][0-9A-Za-z.+]*$`)

// arch is the older name of an ABI.
func arch(abi string) (string, error) {
	parts := strings.Split(abi, ":")
	names := map[string]string{"amd64": "x86:64", "aarch64": "aarch64:64"}
	if len(parts) != 3 || parts[0] != "FreeBSD" || names[parts[2]] == "" {
		return "", fmt.Errorf("the ABI %q is not one of FreeBSD:N:amd64 and FreeBSD:N:aarch64", abi)
	}
	return "freebsd:" + parts[1] + ":" + names[parts[2]], nil
}

// Write writes the package.
func (p Package) Write(w io.Writer) error {
	full, err := p.manifest()
	if err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	compact := full
	compact.Files, compact.Directories, compact.Scripts = nil, nil, nil
	// More than one goroutine would make the bytes depend on which was first.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	add := func(name string, typ byte, mode int64, data []byte) error {
		h := &tar.Header{Name: name, Typeflag: typ, Mode: mode, Size: int64(len(data)), Uname: "root", Gname: "wheel", ModTime: p.Modified}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	for _, m := range []struct {
		name string
		text manifest
	}{{"+COMPACT_MANIFEST", compact}, {"+MANIFEST", full}} {
		data, err := json.Marshal(m.text)
		if err != nil {
			return err
		}
		if err := add(m.name, tar.TypeReg, 0o644, data); err != nil {
			return err
		}
	}
	files := slices.Clone(p.Files)
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	for _, f := range files {
		if err := add(f.Path, tar.TypeReg, f.Mode, f.Data); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	for _, dir := range slices.Sorted(slices.Values(p.Directories)) {
		if err := add(dir+"/", tar.TypeDir, 0o755, nil); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (p Package) manifest() (manifest, error) {
	if !versionText.MatchString(p.Version) {
		return manifest{}, fmt.Errorf("the version %q is none for pkg: digits first, then letters, digits, dots", p.Version)
	}
	arch, err := arch(p.ABI)
	if err != nil {
		return manifest{}, err
	}
	m := manifest{
		Name: p.Name, Origin: p.Origin, Version: p.Version, Comment: p.Comment, Maintainer: p.Maintainer, WWW: p.WWW,
		ABI: p.ABI, Arch: arch, Prefix: p.Prefix, LicenseLogic: "single", Licenses: []string{p.License}, Desc: encode(p.Desc), Categories: p.Categories,
		Files: make(map[string]string), Directories: make(map[string]string), Scripts: make(map[string]string),
	}
	for _, f := range p.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return m, fmt.Errorf("%q is no absolute path", f.Path)
		}
		if _, twice := m.Files[encode(f.Path)]; twice {
			return m, fmt.Errorf("%s comes twice", f.Path)
		}
		sum := sha256.Sum256(f.Data)
		m.Files[encode(f.Path)] = "1$" + hex.EncodeToString(sum[:]) // 1: SHA-256 in hexadecimal
		m.FlatSize += int64(len(f.Data))
	}
	for _, dir := range p.Directories {
		m.Directories[encode(dir)] = "y"
	}
	for name, text := range p.Scripts {
		m.Scripts[name] = encode(text)
	}
	for _, when := range slices.Sorted(maps.Keys(p.Messages)) {
		m.Messages = append(m.Messages, message{p.Messages[when], when})
	}
	return m, nil
}

// encode is how pkg(8) expects texts in a manifest.
func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] == '%' || s[i] >= 0x80 {
			fmt.Fprintf(&b, "%%%.2x", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
