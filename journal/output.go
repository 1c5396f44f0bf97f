package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// InlineOutput is the longest output in bytes that is kept in the row of its
// job; longer output lies in a file beside the journal. A reply never carries
// more than this.
const InlineOutput = cbsdmq.ReplyOutput

// outputFile is where stdout of a job lies that is too long for its row.
func outputFile(path string, seq int64) string {
	return filepath.Join(outputDir(path), strconv.FormatInt(seq, 10)+outputSuffix)
}

func outputDir(path string) string { return filepath.Join(filepath.Dir(path), "output") }

const outputSuffix = ".out"

// SaveOutput writes the stdout of a job to disk, synced, before its Finish is
// committed. What a crash leaves between the two is removed by Sweep.
func (j *Journal) SaveOutput(seq int64, src io.Reader) (err error) {
	name := outputFile(j.path, seq)
	defer func() { err = explain("keeping output in", name, err) }()
	if err := makeDir(filepath.Dir(name)); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, src)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(name)
		return err
	}
	return syncDir(filepath.Dir(name))
}

// Output opens the stdout of an ended job. It is empty where it was dropped.
func (r Reader) Output(ctx context.Context, seq int64) (io.ReadSeekCloser, error) {
	doing := fmt.Sprintf("reading the output of job %d", seq)
	var b []byte
	var inline bool
	err := r.db.QueryRowContext(ctx, "SELECT output, output IS NOT NULL OR plan IS NULL FROM job WHERE seq = ?", seq).Scan(&b, &inline)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, cbsdmq.Errorf(cbsdmq.CodeNotFound, "job", "%s: no such job", doing)
	}
	if err != nil {
		return nil, explain(doing+" from", r.path, err)
	}
	if !inline {
		f, err := os.Open(outputFile(r.path, seq))
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
	}
	return nopCloser{strings.NewReader(string(b))}, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// Sweep removes output files that belong to no ended job: left by an agent
// that was killed between writing the output and committing the end. It is
// called before anything is saved.
func (j *Journal) Sweep(ctx context.Context) (err error) {
	dir := outputDir(j.path)
	defer func() { err = explain("removing stray output from", dir, err) }()
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		name, isOutput := strings.CutSuffix(f.Name(), outputSuffix)
		seq, err := strconv.ParseInt(name, 10, 64)
		if !isOutput || err != nil {
			continue
		}
		var owned bool
		const query = "SELECT EXISTS (SELECT 1 FROM job WHERE seq = ? AND finished > 0 AND plan IS NOT NULL AND output IS NULL)"
		if err := j.read.QueryRowContext(ctx, query, seq).Scan(&owned); err != nil {
			return err
		}
		if !owned {
			errs = append(errs, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return errors.Join(errs...)
}
