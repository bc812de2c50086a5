package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// maxDepth is how deep arrays and objects may be nested, the bound of encoding/json.
const maxDepth = 10_000

// scanner reads JSON once, from left to right, and accepts what encoding/json
// accepts. It finds where values are and decodes only the names of fields. Each method
// starts at what it reads, stops behind it, and reports whether it was JSON.
type scanner struct {
	b     []byte
	at    int
	depth int
}

// field is one field of an object.
type field struct {
	name    []byte // decoded
	escaped bool   // the name was written with a backslash
	value   []byte // a part of the scanned bytes, with no capacity beyond it
	at      int    // where the value begins in the scanned bytes
}

// end skips white space and reports whether nothing else follows.
func (s *scanner) end() bool {
	s.space()
	return s.at == len(s.b)
}

// space skips white space and returns the byte behind it, or 0 at the end.
func (s *scanner) space() byte {
	for ; s.at < len(s.b); s.at++ {
		if c := s.b[s.at]; c > ' ' || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

// take skips one byte if it is c, and reports whether it was.
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

// object passes every field to each, unless that is nil, in the order they are written.
// It passes a field that is written twice twice.
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

// leave skips the closing bracket of an object or an array.
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

// array passes every element to each, unless that is nil.
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

// text skips a string. Its bytes need not be UTF-8.
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
// string: those before a quote, a backslash, a control character or the end. It looks
// at eight bytes at once while it can.
func ordinary(b []byte) int {
	const ones, highs = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		// The subtraction sets the high bit of every byte below 0x80 that is too small.
		// It borrows from the bytes behind, so only the first one found is right.
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

// escape goes from a backslash to the last byte of its escape sequence.
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

// digits skips digits and reports whether there was at least one.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.b) && isDigit(s.b[s.at]) {
		s.at++
	}
	return s.at > start
}
