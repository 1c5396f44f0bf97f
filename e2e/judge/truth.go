package judge

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// OutputSum is the sum of a whole stdout as the truth has it.
func OutputSum(stdout []byte) string {
	sum := sha256.Sum256(stdout)
	return hex.EncodeToString(sum[:8])
}

// ReadTruthFile reads the truth about a pool from a file, which need not exist.
func ReadTruthFile(name, pool string) (acts []Act, broken []string, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the truth: %w", err)
	}
	defer f.Close()
	return ReadTruth(f, pool)
}

// ReadTruth reads the journal of a simulated cbsd (cbsdsim.Config.Journal):
//
//	B <unix nanoseconds> <pid> <job> <command> <guests> <arguments, JSON>
//	O <unix nanoseconds> <pid> <job> <command> <guest> <job and pid that hold it>
//	E <unix nanoseconds> <pid> <job> <command> <guests> <exit status> <bytes> <sum>
//
// A line that is none of these is in broken.
func ReadTruth(r io.Reader, pool string) (acts []Act, broken []string, err error) {
	open := make(map[string]int) // by pid, job and command
	in := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if line == "" && errors.Is(err, io.EOF) {
			return acts, broken, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return acts, broken, fmt.Errorf("reading the truth: %w", err)
		}
		evidence := fmt.Sprintf("truth of %s, line %d: %s", pool, n, strings.TrimSuffix(line, "\n"))
		if !fact(&acts, open, line, pool, evidence) {
			broken = append(broken, evidence)
		}
	}
}

// fact adds a line to acts, and reports whether it could be read.
func fact(acts *[]Act, open map[string]int, line, pool, evidence string) bool {
	text, whole := strings.CutSuffix(line, "\n")
	f := strings.SplitN(text, " ", 7)
	if !whole || len(f) < 7 {
		return false
	}
	at, err1 := strconv.ParseInt(f[1], 10, 64)
	pid, err2 := strconv.Atoi(f[2])
	if err1 != nil || err2 != nil {
		return false
	}
	key := strings.Join(f[2:5], " ")
	if f[0] == "B" {
		a := Act{Pool: pool, Job: f[3], PID: pid, Command: f[4], Begin: time.Unix(0, at), Lines: []string{evidence}}
		if f[5] != "-" {
			a.Guests = strings.Split(f[5], ",")
		}
		if json.Unmarshal([]byte(f[6]), &a.Args) != nil {
			return false
		}
		open[key] = len(*acts)
		*acts = append(*acts, a)
		return true
	}
	i, ok := open[key]
	if !ok {
		return false
	}
	a := &(*acts)[i]
	switch f[0] {
	case "O":
		a.Overlaps = append(a.Overlaps, f[5]+": "+f[6])
	case "E":
		if _, err := fmt.Sscanf(f[6], "%d %d %s", &a.Status, &a.Bytes, &a.Sum); err != nil {
			return false
		}
		a.End = time.Unix(0, at)
		delete(open, key)
	default:
		return false
	}
	a.Lines = append(a.Lines, evidence)
	return true
}
