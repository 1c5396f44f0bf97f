package cbsd

import (
	"slices"
	"testing"

	"github.com/cbsd/cbsdmq"
)

func TestNamed(t *testing.T) {
	for name, c := range map[string]struct {
		command string
		args    []cbsdmq.Arg
		words   []string
		guests  []string
		makes   bool
	}{
		"argument":       {"bset", []cbsdmq.Arg{{Name: "jname", Value: "vm1"}, {Name: "vm_ram", Value: "1g"}}, nil, []string{"vm1"}, false},
		"word":           {"bstart", nil, []string{"vm1"}, []string{"vm1"}, false},
		"words":          {"bstop", nil, []string{"vm1", "vm2", "vm1"}, []string{"vm1", "vm2"}, false},
		"columns":        {"bget", []cbsdmq.Arg{{Name: "jname", Value: "vm1"}}, []string{"vm_ram"}, []string{"vm1"}, false},
		"made":           {"bcreate", []cbsdmq.Arg{{Name: "jname", Value: "vm1"}}, nil, nil, true},
		"made of a form": {"jcreate", nil, nil, nil, true},
		"clone":          {"bclone", []cbsdmq.Arg{{Name: "old", Value: "vm1"}, {Name: "new", Value: "vm2"}}, nil, []string{"vm1"}, true},
		"image":          {"bimport", []cbsdmq.Arg{{Name: "jname", Value: "x.img"}, {Name: "new_jname", Value: "vm2"}}, nil, nil, true},
		"none":           {"jls", nil, nil, nil, false},
		"of a module":    {"vm-api", []cbsdmq.Arg{{Name: "jname", Value: "vm1"}}, []string{"x"}, []string{"vm1"}, false},
		"unknown":        {"third-party", []cbsdmq.Arg{{Name: "jname", Value: "vm1"}}, []string{"x"}, []string{"vm1"}, false},
	} {
		guests, makes := Named(cbsdmq.Job{Command: c.command, Args: c.args, Meta: &cbsdmq.Meta{Words: c.words}})
		if !slices.Equal(guests, c.guests) || makes != c.makes {
			t.Errorf("%s: %q, %v", name, guests, makes)
		}
	}
	if !Takes("bstart", "bhyve") || Takes("bstart", "jail") || !Takes("task", "jail") || !Takes("jstart", "jail") {
		t.Error("commands take the wrong guests")
	}
}
