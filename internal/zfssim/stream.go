package zfssim

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// A record begins each snapshot of a stream; Size bytes of content follow.
type record struct {
	Set, Snapshot string
	Kind          string
	GUID          string
	From          string            // guid of the snapshot that it is an increment of
	Props         map[string]string // of the dataset, with -p
	Tags          map[string]string // of the snapshot, with -p
	Offset, Size  int64             // of the content
}

func (c *call) send() error {
	list, err := c.records()
	if err != nil {
		return err
	}
	if c.has("n") {
		sum := int64(0)
		for _, r := range list {
			sum += r.Size
			fmt.Fprintf(c.out, "full\t%s@%s\t%d\n", r.Set, r.Snapshot, r.Size)
		}
		fmt.Fprintf(c.out, "size\t%d\n", sum)
		return nil
	}
	var images []*os.File
	for _, r := range list {
		d, s, err := c.p.find(r.Set + "@" + r.Snapshot)
		if err != nil {
			return err
		}
		f, err := os.Open(c.p.image(d, s))
		if err != nil {
			return err
		}
		defer f.Close()
		images = append(images, f)
	}
	c.p.lock.Close() // who receives needs it
	for i, r := range list {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := c.out.Write(append(line, '\n')); err != nil {
			return err
		}
		if _, err := io.Copy(c.out, io.NewSectionReader(images[i], r.Offset, r.Size)); err != nil {
			return err
		}
	}
	return nil
}

// records says what is sent.
func (c *call) records() (list []record, err error) {
	if c.has("t") {
		text, err := base64.RawURLEncoding.DecodeString(c.flag("t", ""))
		if err != nil {
			return nil, errors.New("cannot resume send: resume token is corrupt")
		}
		var r record
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, err
		}
		return []record{r}, nil
	}
	name, err := c.one()
	if err != nil {
		return nil, err
	}
	d, last, err := c.p.find(name)
	if err != nil {
		return nil, err
	}
	if last == nil {
		return nil, fmt.Errorf("cannot send '%s': not a snapshot", name)
	}
	set, _, _ := strings.Cut(name, "@")
	first := slices.Index(d.Snapshots, last)
	from := ""
	if c.has("I") {
		_, s, err := c.p.find(c.flag("I", ""))
		if err != nil {
			return nil, err
		}
		if first = slices.Index(d.Snapshots, s) + 1; first == 0 || s.TXG >= last.TXG {
			return nil, fmt.Errorf("cannot send '%s': not an earlier snapshot from the same fs", name)
		}
		from = s.GUID
	}
	for _, s := range d.Snapshots[first : slices.Index(d.Snapshots, last)+1] {
		info, err := os.Stat(c.p.image(d, s))
		if err != nil {
			return nil, err
		}
		r := record{Set: set, Snapshot: s.Name, Kind: d.Kind, GUID: s.GUID, From: from, Size: info.Size()}
		if c.has("p") {
			r.Props, r.Tags = d.Props, s.all()
		}
		list, from = append(list, r), s.GUID
	}
	return list, nil
}

func (c *call) receive() error {
	name, err := c.one()
	if err != nil {
		return err
	}
	in := bufio.NewReader(c.in)
	c.p.lock.Close() // who sends needs it first
	for n := 0; ; n++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 && n > 0 {
			break
		}
		if err != nil {
			return errors.New("cannot receive: failed to read from stream")
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("cannot receive: invalid stream: %w", err)
		}
		if err := c.take(name, r, in); err != nil {
			return err
		}
	}
	if c.p, err = open(c.p.dir); err != nil {
		return err
	}
	if !c.has("u") && c.p.Sets[name].Kind == "filesystem" && !c.p.Sets[name].Mounted {
		return errors.Join(c.p.mount(name), c.p.save())
	}
	return nil
}

// take receives one snapshot.
func (c *call) take(name string, r record, in io.Reader) (err error) {
	if c.p, err = open(c.p.dir); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, c.p.save())
		c.p.lock.Close()
	}()
	d := c.p.Sets[name]
	switch {
	case r.Offset > 0: // the rest of one
		if d == nil || d.Token == "" {
			return fmt.Errorf("cannot receive resume stream: destination '%s' has no partial receive", name)
		}
	case d != nil && d.Token != "":
		return fmt.Errorf("cannot receive: destination %s contains partially-complete state from \"zfs receive -s\"", name)
	case r.From == "" && d != nil:
		return fmt.Errorf("cannot receive new filesystem stream: destination '%s' exists\nmust specify -F to overwrite it", name)
	case r.From == "":
		props, err := c.props()
		if err != nil {
			return err
		}
		all := maps.Clone(r.Props)
		if all == nil {
			all = make(map[string]string)
		}
		maps.Copy(all, props)
		if d, err = c.p.add(name, r.Kind, all); err != nil {
			return err
		}
	case d == nil:
		return fmt.Errorf("cannot receive incremental stream: destination '%s' does not exist", name)
	case d.Snapshots[len(d.Snapshots)-1].GUID != r.From:
		return fmt.Errorf("cannot receive incremental stream: most recent snapshot of %s does not\nmatch incremental source", name)
	case d.Mounted:
		return fmt.Errorf("cannot receive incremental stream: destination %s has been modified\nsince most recent snapshot", name)
	}
	f, err := os.OpenFile(c.p.partial(d), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.p.save(); err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(in, r.Size))
	if err != nil {
		return err
	}
	if n < r.Size {
		return c.cut(name, d, r, n)
	}
	c.p.TXG++
	s := &Snapshot{Name: r.Snapshot, GUID: r.GUID, TXG: c.p.TXG, Received: r.Tags}
	if err := os.Rename(c.p.partial(d), c.p.image(d, s)); err != nil {
		return err
	}
	d.Token, d.Snapshots = "", append(d.Snapshots, s)
	return c.p.unpack(d, c.p.image(d, s))
}

// cut keeps what has come of a snapshot, with -s.
func (c *call) cut(name string, d *Dataset, r record, n int64) error {
	if !c.has("s") {
		_ = os.Remove(c.p.partial(d))
		if r.From == "" {
			_ = os.RemoveAll(c.p.data(d))
			delete(c.p.Sets, name)
		}
		return errors.New("cannot receive: incomplete stream")
	}
	rest := r
	rest.Offset, rest.Size, rest.Props, rest.Tags = r.Offset+n, r.Size-n, nil, nil
	token, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	d.Token = base64.RawURLEncoding.EncodeToString(token)
	return errors.New("cannot receive: incomplete stream: checksum mismatch or incomplete stream.\nPartially received snapshot is saved.\nA resuming stream can be generated on the sending system by running:\n    zfs send -t " + d.Token)
}
