package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPage(t *testing.T) {
	up := &Family{"up", "Whether it is.", Gauge}
	took := &Family{"took_seconds", "How long.", Histogram}
	var p Page
	p.AddBool(up, true, "pool", "pool1")
	d := NewDurations(100*time.Millisecond, time.Second)
	for _, took := range []time.Duration{-time.Second, 100 * time.Millisecond, 200 * time.Millisecond, time.Minute} {
		d.Observe(took)
	}
	p.AddDurations(took, d, "pool", "pool1")
	p.AddBool(up, false, "pool", "a \"b\"\\\n", "x", "y")
	p.Add(&Family{"none", "No labels.", Counter}, 1.5e9)
	var b strings.Builder
	n, err := p.WriteTo(&b)
	if err != nil || int(n) != b.Len() {
		t.Fatal(n, err)
	}
	want := `# HELP up Whether it is.
# TYPE up gauge
up{pool="pool1"} 1
up{pool="a \"b\"\\\n",x="y"} 0
# HELP took_seconds How long.
# TYPE took_seconds histogram
took_seconds_bucket{pool="pool1",le="0.1"} 2
took_seconds_bucket{pool="pool1",le="1"} 3
took_seconds_bucket{pool="pool1",le="+Inf"} 4
took_seconds_sum{pool="pool1"} 60.3
took_seconds_count{pool="pool1"} 4
# HELP none No labels.
# TYPE none counter
none 1.5e+09
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
