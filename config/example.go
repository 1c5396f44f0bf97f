package config

import (
	_ "embed"
	"strings"
)

//go:embed example.json
var example string

// Example is an annotated file with every key. It can be loaded by this program
// and by the original ones.
func Example() string { return example }

// ExampleFor is Example for a pool of that name and environment. dir must be a
// path that needs no quoting in JSON.
func ExampleFor(pool, dir string) string {
	return strings.NewReplacer(`"/pool1`, `"`+dir, `"cbsd_pool1`, `"cbsd_`+pool, `"pool1"`, `"`+pool+`"`).Replace(example)
}
