package beequeue

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may be nested, as in encoding/json.
const maxDepth = 10_000

// scanner reads JSON once, from left to right, and accepts what encoding/json
// accepts. It decodes nothing but the names of fields: it finds where the values
// are. Its funcs begin at what they read, end behind it, and report whether it
// was JSON.
type scanner struct {
	b     []byte
	at    int
	depth int
}

// field is one field of an object.
type field struct {
	name    []byte // decoded
	escaped bool   // the name was written with a backslash
	value   []byte // part of what was scanned, with no room to append
	at      int    // where in that the value begins
}

// valid is json.Valid in a fraction of its time.
func valid(b []byte) bool {
	s := scanner{b: b}
	s.space()
	return s.value() && s.end()
}

// end is true behind white space, if nothing else follows.
func (s *scanner) end() bool {
	s.space()
	return s.at == len(s.b)
}

// space skips white space. It gives the byte behind it, 0 at the end.
func (s *scanner) space() byte {
	for ; s.at < len(s.b); s.at++ {
		if c := s.b[s.at]; c > ' ' || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

// take skips one byte if it is c.
func (s *scanner) take(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) value() bool {
	if s.at == len(s.b) {
		return false
	}
	switch s.b[s.at] {
	case '"':
		return s.text()
	case '{':
		return s.object(nil)
	case '[':
		return s.array(nil)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

// object hands each field to the func, if there is one, in the order in which
// they are written and as often as they are.
func (s *scanner) object(each func(field)) bool {
	if s.depth++; s.depth > maxDepth || !s.take('{') {
		return false
	}
	if s.space() == '}' {
		return s.leave()
	}
	for s.space() == '"' {
		start := s.at
		if !s.text() {
			return false
		}
		name := s.b[start:s.at]
		if s.space(); !s.take(':') {
			return false
		}
		s.space()
		start = s.at
		if !s.value() {
			return false
		}
		if each != nil {
			each(newField(name, s.b[start:s.at:s.at], start))
		}
		switch s.space() {
		case ',':
			s.at++
		case '}':
			return s.leave()
		default:
			return false
		}
	}
	return false
}

// leave goes behind the end of an object or an array.
func (s *scanner) leave() bool {
	s.at++
	s.depth--
	return true
}

func newField(quoted, value []byte, at int) field {
	f := field{name: quoted[1 : len(quoted)-1], value: value, at: at}
	if !plain(f.name) {
		f.escaped = bytes.IndexByte(quoted, '\\') >= 0
		f.name = []byte(unquote(quoted))
	}
	return f
}

// array hands each element to the func, if there is one.
func (s *scanner) array(each func(value []byte)) bool {
	if s.depth++; s.depth > maxDepth || !s.take('[') {
		return false
	}
	if s.space() == ']' {
		return s.leave()
	}
	for {
		s.space()
		start := s.at
		if !s.value() {
			return false
		}
		if each != nil {
			each(s.b[start:s.at:s.at])
		}
		switch s.space() {
		case ',':
			s.at++
		case ']':
			return s.leave()
		default:
			return false
		}
	}
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.at < len(w) || string(s.b[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// text skips a string, whose bytes need not be UTF-8.
func (s *scanner) text() bool {
	for s.at++; ; s.at++ {
		if s.at += ordinary(s.b[s.at:]); s.at == len(s.b) {
			return false
		}
		switch s.b[s.at] {
		case '"':
			s.at++
			return true
		case '\\':
			if !s.escape() {
				return false
			}
		default:
			return false
		}
	}
}

// ordinary counts the bytes at the beginning of b that stand for themselves in a
// string: up to a quote, a backslash, a control character or the end. It looks at
// eight at once while it can.
func ordinary(b []byte) int {
	const ones, highs = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		// Of bytes below 0x80, the subtraction sets the high bit in those that are too
		// small. It borrows from the bytes behind, but the first found is right.
		found := (w - ' '*ones) | (w ^ '"'*ones - ones) | (w ^ '\\'*ones - ones)
		if found &= ^w & highs; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for n < len(b) && b[n] >= ' ' && b[n] != '"' && b[n] != '\\' {
		n++
	}
	return n
}

// escape goes from a backslash to the last byte of what it begins.
func (s *scanner) escape() bool {
	if s.at++; s.at == len(s.b) {
		return false
	}
	switch s.b[s.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			if s.at++; s.at == len(s.b) || !isHex(s.b[s.at]) {
				return false
			}
		}
		return true
	default:
		return false
	}
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

// digits skips digits, of which there must be one.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.b) && isDigit(s.b[s.at]) {
		s.at++
	}
	return s.at > start
}

// plain tells whether text in JSON stands for itself: there is no escape in it,
// and nothing that may not be UTF-8.
func plain(b []byte) bool {
	for _, c := range b {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// unquote gives the text of a string, which must be one.
func unquote(quoted []byte) string {
	if inner := quoted[1 : len(quoted)-1]; plain(inner) {
		return string(inner)
	}
	var s string
	_ = json.Unmarshal(quoted, &s)
	return s
}
