package cbsdsim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// A profile is a template for VMs. Names and media of the few that the
// simulator has are those of CBSD, where it has the profile too.
type profile struct {
	os, name, title string
	medium          string // its name in the list of media
	file0           string // its file in src/iso
	isoSize         int64
	imgsize         int64 // without the argument
	imgsizeMin      int64
	vmRAMMin        int64
	efi             string
}

const (
	mb = 1 << 20
	gb = 1 << 30
)

func profiles() []profile {
	return []profile{
		{"linux", "lab-tiny", "CBSD lab tiny", "iso-lab-tiny", "cbsd-iso-lab-tiny.iso", mb, 10 * mb, 10 * mb, 64 * mb, "none"},
		{"linux", "Debian-x86-12", "Debian: 12.7.0", "iso-debian-12.7.0-amd64-DVD-1.iso", "cbsd-iso-debian-12.7.0-amd64-DVD-1.iso", 4 * gb, 20 * gb, 3 * gb, 256 * mb, "uefi"},
		{"freebsd", "FreeBSD-x64-14.1", "FreeBSD: 14.1-RELEASE", "iso-FreeBSD-x64-14.1-RELEASE-amd64-disc1", "cbsd-iso-FreeBSD-14.1-RELEASE-amd64-disc1.iso", gb, 20 * gb, 3 * gb, 256 * mb, "uefi"},
		{"linux", "cloud-lab-tiny", "CBSD lab tiny (cloud)", "cloud-lab-tiny", "cbsd-cloud-lab-tiny.raw", 2 * mb, gb, 2 * mb, 64 * mb, "uefi"},
		{"linux", "cloud-Debian-x86-12", "Debian: 12.5.0 (cloud)", "cloud-debian-x86-12.5.0", "cbsd-cloud-Debian-x86-12.5.0.raw", 2 * gb, 10 * gb, 4 * gb, 256 * mb, "uefi"},
		{"linux", "cloud-CentOS-stream-9-x86_64", "CentOS Stream: 9 (cloud)", "cloud-centOS-stream-9-20231113-x86_64", "cbsd-cloud-CentOS-stream-9-20231113-x86_64-cloud.raw", 5 * gb, 20 * gb, 5 * gb, 256 * mb, "uefi"},
		{"freebsd", "cloud-FreeBSD-ufs-x64-14.1", "FreeBSD: 14.1-RELEASE (UFS) (cloud)", "cloud-FreeBSD-ufs-x64-14.1.0-CURRENT-amd64", "cbsd-cloud-FreeBSD-ufs-14.1.0-CURRENT-amd64.raw", 4 * gb, 10 * gb, 4 * gb, 256 * mb, "uefi"},
		{"freebsd", "cloud-FreeBSD-zfs-x64-14.1", "FreeBSD: 14.1-RELEASE (ZFS) (cloud)", "cloud-FreeBSD-zfs-x64-14.1.0-CURRENT-amd64", "cbsd-cloud-FreeBSD-zfs-14.1.0-CURRENT-amd64.raw", 4 * gb, 10 * gb, 4 * gb, 256 * mb, "uefi"},
		{"openbsd", "cloud-openbsd-x86-7", "OpenBSD: 7.6-RELEASE (cloud)", "cloud-openbsd-x86-76", "cbsd-cloud-openbsd-76.raw", 5 * gb, 6 * gb, 5 * gb, 256 * mb, "uefi"},
	}
}

func (p profile) cloud() bool            { return strings.HasPrefix(p.name, "cloud-") }
func (p profile) iso(w workdir) string   { return w.path("src", "iso", p.file0) }
func (p profile) key() string            { return "vm-" + p.os + "-" + p.name + ".conf" }
func (p profile) missing(w workdir) bool { _, err := os.Stat(p.iso(w)); return err != nil }

// image is the name of the medium on a mirror when it is unpacked, dist before.
func (p profile) image() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.file0, "cbsd-cloud-"), "cbsd-iso-")
}

func (p profile) dist() string {
	if p.cloud() {
		return p.image() + ".xz"
	}
	return p.image()
}

// sum stands for a checksum.
func (p profile) sum() string {
	sum := sha256.Sum256([]byte(p.name))
	return hex.EncodeToString(sum[:])
}

func (p profile) file() string {
	prefix := strings.TrimSuffix(p.file0, p.image())
	text := fmt.Sprintf("# a profile of the simulator\nlong_description=\"%s\"\nvm_profile=\"%s\"\nvm_os_type=\"%s\"\nbhyve_active=1\nfetch=1\niso_site=\"http://mirror.invalid/\"\n"+
		"iso_img=\"%s\"\nregister_iso_name=\"%s${iso_img}\"\nsha256sum=\"%s\"\niso_img_dist_size=\"%d\"\nimgsize_min=\"%s\"\nvm_efi=\"%s\"\n",
		p.title, p.name, p.os, p.image(), prefix, p.sum(), p.isoSize, humanSize(p.imgsizeMin), p.efi)
	if p.cloud() {
		text += "iso_img_dist=\"${iso_img}.xz\"\nis_cloud=1\n"
	}
	return text
}

func findProfile(os, name string) (profile, bool) {
	for _, p := range profiles() {
		if p.os == os && p.name == name {
			return p, true
		}
	}
	return profile{}, false
}

// limit is a size that the file etc/EMULATOR-default-default.conf of the
// workdir may set as NAME="SIZE".
func (w workdir) limit(emulator, name string, def int64) int64 {
	data, err := os.ReadFile(w.path("etc", emulator+"-default-default.conf"))
	if err != nil {
		return def
	}
	if n, ok := parseSize(readShellVariables(string(data))[name]); ok {
		return n
	}
	return def
}

// readShellVariables reads lines of NAME="VALUE", with or without a semicolon.
func readShellVariables(text string) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(name, "#") {
			vars[name] = strings.Trim(strings.TrimSuffix(value, ";"), `"`)
		}
	}
	return vars
}

const units = "bkmgtp"

// parseSize reads 512, 64m, 1.5g: bytes, or a number with one of b k m g t p.
func parseSize(s string) (bytes int64, ok bool) {
	if s == "" {
		return 0, false
	}
	scale := 1.0
	if i := strings.IndexByte(units, strings.ToLower(s)[len(s)-1]); i >= 0 {
		scale = math.Pow(1024, float64(i))
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n < 0 || math.IsNaN(n) || n*scale > math.MaxInt64/2 {
		return 0, false
	}
	return int64(n * scale), true
}

// humanSize is the largest unit that is not below one, rounded: 10m, 24g, 0.
func humanSize(bytes int64) string {
	if bytes == 0 {
		return "0"
	}
	n, unit := float64(bytes), 0
	for n >= 1024 && unit < len(units)-1 {
		n /= 1024
		unit++
	}
	if unit == 0 {
		return strconv.FormatInt(bytes, 10)
	}
	return fmt.Sprintf("%.0f%c", n, units[unit])
}
