package config

import "strings"

// nearest is the one of words that name was most likely meant to be, "" where
// none is near.
func nearest(name string, words []string) string {
	name = strings.ToLower(name)
	best, most := "", 2
	if len(name) <= 4 {
		most = 1
	}
	for _, w := range words {
		if d := distance(name, w); d <= most {
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

// distance is how many characters must be changed, added, removed or swapped
// with their neighbour to make b of a.
func distance(a, b string) int {
	const far = 100
	if len(a) > 64 || len(b) > 64 {
		return far
	}
	var before, row, next [65]int
	for j := range len(b) + 1 {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
