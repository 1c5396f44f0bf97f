package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	smallDisk = 24 << 20
	ballast   = "ballast" // file that fills it
)

// mountSmall puts a small file system at dir, for root.
func (w *world) mountSmall(dir string) error {
	if os.Getuid() != 0 {
		return errors.New("only root can mount one")
	}
	if err := syscall.Mount("cbsdmq-torture", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", smallDisk)); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	w.Cleanup(func() {
		os.Remove(filepath.Join(dir, ballast))
		if err := os.CopyFS(dir+".kept", os.DirFS(dir)); err != nil {
			w.note("keeping %s: %v", dir, err)
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			w.note("unmounting %s: %v", dir, err)
		}
	})
	return nil
}

// fill leaves no room on the disk of the journal; free gives it back.
func (p *pool) fill() (free func(), err error) {
	name := filepath.Join(p.journal, ballast)
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("filling the disk: %w", err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				return nil, fmt.Errorf("filling the disk: %w", err)
			}
			block = block[:len(block)/2]
		}
	}
	return func() { os.Remove(name) }, nil
}
