package cbsdmq

import "fmt"

// A Work is how far a running command is, as far as that can be seen: from what
// it prints, or from the size of the file that it makes. Of what is not known
// the fields are 0.
type Work struct {
	What    string `json:"what,omitempty"`    // what it does now, such as "downloading cloud-Debian-x86-12"
	Percent int    `json:"percent,omitempty"` // 1 to 99
	Bytes   int64  `json:"bytes,omitempty"`   // done by now
	Of      int64  `json:"of,omitempty"`      // bytes in all
	Left    int    `json:"left,omitempty"`    // seconds until it is done, at the speed that it had until now
	Still   int    `json:"still,omitempty"`   // seconds since anything has moved, where that is long
}

// workText is the most bytes of What.
const workText = 160

// short returns w with a What that a list shows.
func (w *Work) short() *Work {
	if w == nil || len(w.What) <= workText {
		return w
	}
	s := *w
	s.What = cutText(w.What, workText)
	return &s
}

// Span shows seconds to a person: 45s, 12m, 3h20m.
func Span(seconds int) string {
	switch {
	case seconds < 100:
		return fmt.Sprintf("%ds", seconds)
	case seconds < 100*60:
		return fmt.Sprintf("%dm", (seconds+30)/60)
	}
	return fmt.Sprintf("%dh%02dm", seconds/3600, seconds/60%60)
}
