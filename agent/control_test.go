package agent

import (
	"context"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

type aged struct {
	bus.Consumer
	age time.Duration
}

func (a aged) Age(context.Context, bus.Delivery) (time.Duration, error) { return a.age, nil }

// A pause that nobody waited for any more when the agent came back is not made; a
// question may be answered late.
func TestOutlivedRequest(t *testing.T) {
	const (
		pause  = `{"v":1,"reply":"01K9ZQ6V4S8H2M0W3C5D7E9F1G","req":"1","op":"pause","by":"root"}`
		status = `{"v":1,"reply":"01K9ZQ6V4S8H2M0W3C5D7E9F1G","req":"1","op":"status"}`
	)
	for _, test := range []struct {
		body string
		age  time.Duration
		want bool
	}{
		{pause, time.Second, false},
		{pause, 7 * time.Minute, true},
		{status, 7 * time.Minute, false},
		{"not a request", 7 * time.Minute, false},
	} {
		if got := outlived(t.Context(), aged{age: test.age}, bus.Delivery{Body: []byte(test.body)}); got != test.want {
			t.Errorf("%s after %v: %v", test.body, test.age, got)
		}
	}
}
