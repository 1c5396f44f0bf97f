package config

import _ "embed"

//go:embed example.json
var example string

// Example is an annotated file with every key. It can be loaded by this program
// and by the original ones.
func Example() string { return example }
