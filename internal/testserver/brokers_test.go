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
