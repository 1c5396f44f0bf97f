package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// plainHandler prints warnings and errors as one line for people, without time
// and level, and nothing below them.
type plainHandler struct {
	w     io.Writer
	attrs string
}

func (h plainHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (h plainHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool { writeAttr(&b, a); return true })
	_, err := fmt.Fprintf(h.w, "cbsdmq: %s%s\n", r.Message, b.String())
	return err
}

func (h plainHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		writeAttr(&b, a)
	}
	h.attrs = b.String()
	return h
}

// WithGroup returns h: names are not nested on a line for people.
func (h plainHandler) WithGroup(string) slog.Handler { return h }

func writeAttr(b *strings.Builder, a slog.Attr) {
	if v := a.Value.Resolve().String(); v != "" {
		fmt.Fprintf(b, ", %s %s", a.Key, v)
	}
}
