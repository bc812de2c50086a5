package wire

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// jsonBuilder writes JSON. It is a strings.Builder because that returns its string
// without a copy.
type jsonBuilder struct{ strings.Builder }

func (b *jsonBuilder) integer(n int64) {
	var digits [20]byte
	b.Write(strconv.AppendInt(digits[:0], n, 10))
}

func (b *jsonBuilder) text(s string) {
	if !Unescaped(s) {
		b.Write(AppendString(nil, s))
		return
	}
	b.WriteByte('"')
	b.WriteString(s)
	b.WriteByte('"')
}

// AppendString appends s as encoding/json writes it: quoted and escaped.
func AppendString(b []byte, s string) []byte {
	if !Unescaped(s) {
		quoted, _ := json.Marshal(s) //nolint:errchkjson // a string always marshals
		return append(b, quoted...)
	}
	b = slices.Grow(b, len(s)+2)
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// Unescaped reports whether s is plain ASCII that encoding/json writes unchanged
// between quotes. Text beyond ASCII may be written unchanged as well, but finding out
// takes a closer look.
func Unescaped(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// Valid reports whether b is JSON. It is json.Valid in a fraction of the time.
func Valid(b []byte) bool {
	s := scanner{b: b}
	s.space()
	return s.value() && s.end()
}

// Excerpt returns the first 60 bytes of raw, which may be large or not text, as valid
// UTF-8. It marks what it cuts off with an ellipsis.
func Excerpt(raw []byte) string {
	const most = 60
	if len(raw) > most {
		return strings.ToValidUTF8(string(raw[:most]), "?") + "…"
	}
	return strings.ToValidUTF8(string(raw), "?")
}

// plain reports whether the inside of a JSON string stands for itself: it has no
// escapes, and nothing beyond ASCII, which might not be UTF-8.
func plain(b []byte) bool {
	for _, c := range b {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// unquote decodes a JSON string, quotes included.
func unquote(quoted []byte) string {
	if inner := quoted[1 : len(quoted)-1]; plain(inner) {
		return string(inner)
	}
	var s string
	_ = json.Unmarshal(quoted, &s)
	return s
}

// absent reports whether a value is missing or null.
func absent(raw []byte) bool {
	return len(raw) == 0 || string(raw) == "null"
}
