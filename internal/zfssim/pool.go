package zfssim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Variable names the directory of the pools, in the environment of Main.
const Variable = "ZFSSIM"

// A Dataset is a file system or a volume.
type Dataset struct {
	ID        string            `json:"id"`
	Kind      string            `json:"kind"` // filesystem or volume
	Props     map[string]string `json:"props"`
	Origin    string            `json:"origin,omitempty"`
	Mounted   bool              `json:"mounted,omitempty"`
	Token     string            `json:"token,omitempty"` // of a stream that was cut short
	Snapshots []*Snapshot       `json:"snapshots,omitempty"`
}

// A Snapshot is one of a dataset, the oldest first.
type Snapshot struct {
	Name  string            `json:"name"` // without that of the dataset
	GUID  string            `json:"guid"`
	TXG   int               `json:"txg"`
	Props map[string]string `json:"props,omitempty"`

	Received map[string]string `json:"received,omitempty"` // with the stream; Props are local
}

// pools are all datasets of a directory, by name.
type pools struct {
	dir  string
	lock *os.File
	TXG  int                 `json:"txg"`
	Sets map[string]*Dataset `json:"sets"`
}

func open(dir string) (*pools, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, err
	}
	p := &pools{dir: dir, lock: lock, Sets: make(map[string]*Dataset)}
	text, err := os.ReadFile(filepath.Join(dir, "pools.json"))
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		lock.Close()
		return nil, err
	}
	return p, nil
}

func (p *pools) save() error {
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	file := filepath.Join(p.dir, "pools.json")
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func guid() string { return strconv.FormatUint(rand.Uint64()>>1, 10) }

// data is where a dataset that is not mounted has its files, or a volume its bytes.
func (p *pools) data(d *Dataset) string { return filepath.Join(p.dir, "data-"+d.ID) }

func (p *pools) image(d *Dataset, s *Snapshot) string {
	return filepath.Join(p.dir, "snapshot-"+d.ID+"-"+s.GUID)
}

func (p *pools) partial(d *Dataset) string { return filepath.Join(p.dir, "partial-"+d.ID) }

// live is where the files of a dataset are now.
func (p *pools) live(name string) string {
	d := p.Sets[name]
	if d.Mounted {
		return p.mountpoint(name)
	}
	return p.data(d)
}

func (p *pools) mountpoint(name string) string {
	if at, ok := p.Sets[name].Props["mountpoint"]; ok {
		return at
	}
	if parent := filepath.Dir(name); p.Sets[parent] != nil {
		return filepath.Join(p.mountpoint(parent), filepath.Base(name))
	}
	return "/" + name
}

// under lists a dataset and those below it, by name.
func (p *pools) under(name string) []string {
	var names []string
	for n := range p.Sets {
		if n == name || strings.HasPrefix(n, name+"/") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// find resolves the name of a dataset or a snapshot.
func (p *pools) find(name string) (d *Dataset, s *Snapshot, err error) {
	set, snap, isSnapshot := strings.Cut(name, "@")
	d = p.Sets[set]
	if d != nil && isSnapshot {
		i := slices.IndexFunc(d.Snapshots, func(s *Snapshot) bool { return s.Name == snap })
		if i >= 0 {
			return d, d.Snapshots[i], nil
		}
		d = nil
	}
	if d == nil {
		return nil, nil, fmt.Errorf("cannot open '%s': dataset does not exist", name)
	}
	return d, nil, nil
}

func (p *pools) add(name, kind string, props map[string]string) (*Dataset, error) {
	if p.Sets[name] != nil {
		return nil, fmt.Errorf("cannot create '%s': dataset already exists", name)
	}
	if strings.Contains(name, "/") && p.Sets[filepath.Dir(name)] == nil {
		return nil, fmt.Errorf("cannot create '%s': parent does not exist", name)
	}
	d := &Dataset{ID: guid(), Kind: kind, Props: props}
	p.Sets[name] = d
	if kind == "filesystem" {
		return d, os.Mkdir(p.data(d), 0o755)
	}
	return d, os.WriteFile(p.data(d), nil, 0o600)
}

func (p *pools) mount(name string) error {
	d, at := p.Sets[name], p.mountpoint(name)
	switch {
	case d.Kind != "filesystem":
		return fmt.Errorf("cannot open '%s': operation not applicable to datasets of this type", name)
	case d.Mounted:
		return fmt.Errorf("cannot mount '%s': filesystem already mounted", name)
	case d.Token != "":
		return fmt.Errorf("cannot mount '%s': dataset is inconsistent", name)
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := os.Remove(at); err != nil {
		return fmt.Errorf("cannot mount '%s': directory is not empty", at)
	}
	if err := os.Rename(p.data(d), at); err != nil {
		return err
	}
	d.Mounted = true
	return nil
}

func (p *pools) unmount(name string) error {
	d, at := p.Sets[name], p.mountpoint(name)
	if !d.Mounted {
		return nil
	}
	if err := os.Rename(at, p.data(d)); err != nil {
		return fmt.Errorf("cannot unmount '%s': %w", at, err)
	}
	d.Mounted = false
	return os.Mkdir(at, 0o755)
}

func (p *pools) snapshot(name, snap string) error {
	d := p.Sets[name]
	if _, _, err := p.find(name + "@" + snap); err == nil {
		return fmt.Errorf("cannot create snapshot '%s@%s': dataset already exists", name, snap)
	}
	p.TXG++
	s := &Snapshot{Name: snap, GUID: guid(), TXG: p.TXG}
	if err := p.pack(name, p.image(d, s)); err != nil {
		return err
	}
	d.Snapshots = append(d.Snapshots, s)
	return nil
}

// pack writes what a dataset has now into a file.
func (p *pools) pack(name, to string) error {
	if p.Sets[name].Kind == "filesystem" {
		return command("tar", "-C", p.live(name), "-cf", to, ".")
	}
	return command("cp", p.live(name), to)
}

// unpack gives a dataset that is not mounted the content of a snapshot.
func (p *pools) unpack(d *Dataset, from string) error {
	to := p.data(d)
	if d.Kind != "filesystem" {
		return command("cp", from, to)
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return command("tar", "-C", to, "-xpf", from)
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// size is what a dataset holds.
func (p *pools) size(name string) (sum int64) {
	_ = filepath.WalkDir(p.live(name), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}
