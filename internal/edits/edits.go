// Package edits tells how far apart two names are, for hints about misspelt ones.
package edits

// longest is the longest name that is compared.
const longest = 64

// Distance counts the bytes that must be inserted, deleted, replaced or swapped
// with their neighbour to make b of a (optimal string alignment). Of a name
// longer than 64 bytes it says that it is far from every other.
func Distance(a, b string) int {
	if max(len(a), len(b)) > longest {
		return longest
	}
	var before, last, row [longest + 1]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
