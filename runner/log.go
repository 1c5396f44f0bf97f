package runner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The log is written anew when it has grown by so many bytes: when no run is
// left in it, and in any case.
const (
	compactIdle = 256 << 10
	compactBusy = 1 << 20
)

// An eventLog is the file that events are written to before they are sent. It
// is not synced: what the kernel has survives the process.
type eventLog struct {
	path    string
	file    *os.File // nil until the first compact
	size    int64    // of the whole lines in file
	idle    int64    // size from which it is written anew when no run is left in it
	busy    int64    // size from which it is written anew in any case
	torn    bool     // file may end in half a line
	pending []byte   // lines that are not in file yet
}

// add puts lines into the log with the next flush.
func (l *eventLog) add(lines []byte) { l.pending = append(l.pending, lines...) }

// commit writes lines, and what is pending before them, or none of lines.
func (l *eventLog) commit(lines []byte) error {
	n := len(l.pending)
	l.pending = append(l.pending, lines...)
	if err := l.flush(); err != nil {
		l.pending = l.pending[:n]
		return err
	}
	return nil
}

// flush writes what is pending with one write. What cannot be written stays
// pending.
func (l *eventLog) flush() error {
	if len(l.pending) == 0 {
		return nil
	}
	if l.file == nil {
		return errors.New("the runner's log is not open")
	}
	if l.torn {
		// Ends the half line, which reading skips.
		if _, err := l.file.Write([]byte{'\n'}); err != nil {
			return fmt.Errorf("writing the runner's log: %w", err)
		}
		l.torn = false
		l.size++
	}
	if _, err := l.file.Write(l.pending); err != nil {
		l.torn = l.file.Truncate(l.size) != nil
		return fmt.Errorf("writing the runner's log: %w", err)
	}
	l.size += int64(len(l.pending))
	l.pending = l.pending[:0]
	return nil
}

// compact replaces the file by one with content only, which stands for all that
// was written or is pending.
func (l *eventLog) compact(content []byte) error {
	tmp := l.path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("writing the runner's log anew: %w", err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = os.Rename(tmp, l.path)
	}
	if err != nil {
		f.Close()
		os.Remove(tmp)
		l.idle, l.busy = l.size+compactBusy, l.size+compactBusy
		return fmt.Errorf("writing the runner's log anew: %w", err)
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size, l.torn = f, int64(len(content)), false
	l.idle, l.busy = l.size+compactIdle, 4*l.size+compactBusy
	l.pending = l.pending[:0]
	return nil
}

// reopen opens the file as it is, where it could not be written anew.
func (l *eventLog) reopen() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the runner's log: %w", err)
	}
	l.size, err = f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return fmt.Errorf("opening the runner's log: %w", err)
	}
	l.file, l.torn = f, l.size > 0
	l.idle, l.busy = l.size+compactBusy, l.size+compactBusy
	return nil
}

// readLines calls line for each whole line of the file. A last line without its
// end was being written when the writer was killed, and is left out. No file is
// an empty one.
func readLines(path string, line func(string)) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the runner's log: %w", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		s, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the runner's log: %w", err)
		}
		line(s[:len(s)-1])
	}
}

// readMarks returns the highest key of each pool in the logs of all versions in
// dir.
func readMarks(dir string) (map[string]Key, error) {
	paths, err := filepath.Glob(filepath.Join(dir, logPattern))
	if err != nil {
		return nil, fmt.Errorf("looking for logs: %w", err)
	}
	marks := make(map[string]Key)
	for _, path := range paths {
		err := readLines(path, func(line string) {
			if k, ok := parseMark(line); ok && k.After(marks[k.Pool]) {
				marks[k.Pool] = k
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return marks, nil
}
