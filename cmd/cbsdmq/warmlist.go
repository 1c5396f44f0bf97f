package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// chooseImages lists the profiles and, at a terminal, asks which to fetch. nil
// is none.
func (g *globals) chooseImages(list []*warmPool, o *warmFlags) ([]string, error) {
	if err := g.listImages(list); err != nil {
		return nil, err
	}
	if !isTerminal(os.Stdin) || g.json() {
		return nil, usage("which? Name profiles, or give --all or --used")
	}
	fmt.Fprint(g.stderr, "which? Names, `all`, `used`, or nothing: ")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch words := strings.Fields(strings.ReplaceAll(line, ",", " ")); {
	case len(words) == 1 && words[0] == "all":
		o.all = true
	case len(words) == 1 && words[0] == "used":
		o.used = true
	default:
		return words, nil
	}
	return nil, nil
}

func (g *globals) listImages(list []*warmPool) error {
	var rows [][]string
	for _, w := range list {
		for _, name := range sortedImages(w.images) {
			im := w.images[name]
			if !im.Cloud && !im.There {
				continue
			}
			if g.json() {
				if err := g.print(struct {
					Pool string `json:"pool"`
					cbsdmq.Image
					Free int64 `json:"free"`
				}{w.name, im, w.store.Free}); err != nil {
					return err
				}
				continue
			}
			there := ""
			switch {
			case im.Volume:
				there = "volume"
			case im.There:
				there = "yes"
			}
			used := ""
			if im.Used {
				used = "yes"
			}
			rows = append(rows, []string{w.name, im.Profile, some(im.Fetch, func(...any) string { return size(im.Fetch) }),
				some(im.Disk, func(...any) string { return size(im.Disk) }), there, used})
		}
	}
	if g.json() {
		return nil
	}
	if err := table(g.stdout, []string{"POOL", "PROFILE", "FETCH", "DISK", "THERE", "USED"}, rows); err != nil {
		return err
	}
	for _, w := range list {
		if _, err := fmt.Fprintf(g.stdout, "%s: %s of %s free\n", w.name, size(w.store.Free), size(w.store.Size)); err != nil {
			return err
		}
	}
	return nil
}

func sortedImages(m map[string]cbsdmq.Image) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names
}

func (g *globals) printWarm(s warmStep) error {
	if g.json() {
		return g.print(s)
	}
	text := map[string]string{"there": "is there", "fetch": "fetched", "copy": "copied from " + s.From, "convert": "made a volume"}[s.Action]
	switch {
	case s.Action == "skip":
		text = "skipped: " + s.Reason
	case !s.OK:
		text = s.Action + " failed: " + s.Reason
	case s.ID == "" && s.Action != "there":
		text = "would be " + text
	}
	if s.Bytes > 0 && s.OK && s.Action != "skip" {
		text += ", " + size(s.Bytes)
	}
	if _, err := fmt.Fprintf(g.stdout, "%s %s: %s\n", s.Pool, s.Profile, text); err != nil {
		return err
	}
	if s.ID != "" && !s.OK {
		if s.Hint != "" {
			fmt.Fprintln(g.stderr, "hint: "+s.Hint)
		}
		fmt.Fprintf(g.stderr, "hint: what cbsd printed: cbsdmq output %s\n", s.ID)
	}
	return nil
}
