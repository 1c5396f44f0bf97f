package testserver

import (
	"strings"
	"testing"
)

func TestFindBrokers(t *testing.T) {
	found, err := FindBrokers("nats,beanstalkd")
	if err != nil || len(found) != 2 || found[0].Name != "nats" {
		t.Errorf("%d brokers, %v", len(found), err)
	}
	if _, err := FindBrokers("beanstalkd,pigeon"); err == nil || !strings.Contains(err.Error(), `"pigeon"`) {
		t.Errorf("got %v", err)
	}
}

// A stage takes what a test server cannot do as an error, and nothing else.
func TestStage(t *testing.T) {
	s := NewStage(t.TempDir(), t.Logf)
	err := Guard(func() error { s.Fatalf("no port %d", 7); return nil })
	if err == nil || err.Error() != "no port 7" {
		t.Errorf("got %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a fault of the bench was taken for one of a server")
		}
	}()
	_ = Guard(func() error { panic("fault") })
}
