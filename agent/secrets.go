package agent

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq/cbsd"
)

// maskMin is the length in bytes from which on a secret is looked for in output:
// a shorter one would be found by chance.
const maskMin = 4

// withoutSecrets is a plan as it may be shown and kept, and the values that were
// taken out of it.
func withoutSecrets(plan cbsd.Plan) (cbsd.Plan, [][]byte) {
	var values [][]byte
	argv := slices.Clone(plan.Argv)
	for i, a := range argv[min(1, len(argv)):] {
		if name, value, ok := strings.Cut(a, "="); ok && cbsd.Redact(name) && value != "" {
			argv[i+1] = name + "=" + cbsd.Hidden
			values = append(values, []byte(value))
		}
	}
	plan.Argv = argv
	// One may be the beginning of another.
	slices.SortFunc(values, func(a, b []byte) int { return len(b) - len(a) })
	return plan, values
}

// keepWithout returns the stored form of a plan without its secrets, nil where it
// has none.
func keepWithout(stored []byte) []byte {
	var plan cbsd.Plan
	if len(stored) == 0 || json.Unmarshal(stored, &plan) != nil {
		return nil
	}
	plan, values := withoutSecrets(plan)
	if len(values) == 0 {
		return nil
	}
	b, err := json.Marshal(plan)
	if err != nil {
		return nil
	}
	return b
}

// mask overwrites secrets in what a command has printed, byte for byte, so that
// offsets stay what they are.
func mask(p []byte, values [][]byte) {
	for _, v := range values {
		for at := 0; len(v) >= maskMin; {
			i := bytes.Index(p[at:], v)
			if i < 0 {
				break
			}
			at += i
			copy(p[at:], bytes.Repeat([]byte("*"), len(v)))
			at += len(v)
		}
	}
}

// A maskReader is what it reads, masked. It looks for what lies over the border of
// two pieces too.
type maskReader struct {
	r      io.Reader
	values [][]byte
	buf    []byte
	ready  int // bytes of buf that are final
	err    error
}

func masked(r io.Reader, values [][]byte) io.Reader {
	if len(values) == 0 {
		return r
	}
	return &maskReader{r: r, values: values}
}

func (m *maskReader) Read(p []byte) (int, error) {
	const piece = 32 << 10
	for m.ready == 0 {
		if m.err != nil {
			return 0, m.err
		}
		have := len(m.buf)
		m.buf = append(m.buf, make([]byte, piece)...)
		var n int
		n, m.err = m.r.Read(m.buf[have:])
		m.buf = m.buf[:have+n]
		mask(m.buf, m.values)
		longest := 1
		for _, v := range m.values {
			longest = max(longest, len(v))
		}
		m.ready = max(0, len(m.buf)-longest+1)
		if m.err != nil {
			m.ready = len(m.buf)
		}
	}
	n := copy(p, m.buf[:m.ready])
	m.buf = append(m.buf[:0], m.buf[n:]...)
	m.ready -= n
	return n, nil
}
