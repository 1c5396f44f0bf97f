package mem_test

import (
	"testing"

	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/bus/mem"
)

func TestBus(t *testing.T) {
	for _, c := range []struct {
		name string
		o    mem.Options
	}{
		{"TTL", mem.Options{}},
		{"NoTTL", mem.Options{NoTTL: true, MaxBody: 65_533}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bustest.Run(t, func(t *testing.T) bustest.Server {
				b := mem.New(c.o)
				return bustest.Server{
					Driver: b.Driver(),
					Kill:   func(testing.TB) { b.Stop() },
					Start:  func(testing.TB) { b.Start(true) },
					Stop:   func(testing.TB) { b.Freeze() },
					Cont:   func(testing.TB) { b.Thaw() },
					Tubes:  func(testing.TB) int { return b.Tubes() },
				}
			})
		})
	}
}
