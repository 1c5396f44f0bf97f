package config

import (
	"strings"

	"github.com/cbsd/cbsdmq/internal/edits"
)

// nearest is the one of words that name was most likely meant to be, "" where
// none is near.
func nearest(name string, words []string) string {
	name = strings.ToLower(name)
	best, most := "", 2
	if len(name) <= 4 {
		most = 1
	}
	for _, w := range words {
		if d := edits.Distance(name, w); d <= most {
			best, most = w, d-1
		}
	}
	if best != "" || len(name) < 4 {
		return best
	}
	for _, w := range words { // "output" for "output_max"
		if strings.HasPrefix(w, name+"_") || strings.HasSuffix(w, "_"+name) {
			return w
		}
	}
	return ""
}
