package store

import (
	"context"
	"fmt"

	"github.com/redis/rueidis"
)

// These methods read ids by plain commands, page by page, while jobs move.

// pageSize is how many elements one look at a list, a set or a hash takes.
const pageSize = 1000

// EachID calls f with every id that a list, set, sorted set or hash has, in pages. A scan
// may give an id more than once. So may a list, or it may leave an id out, if jobs move
// meanwhile.
func (s *Store) EachID(ctx context.Context, key Key, f func(id string)) error {
	switch keyTable[key].kind {
	case List:
		return s.eachListed(ctx, s.keys.Name(key), f)
	case Set:
		return s.eachScanned(ctx, "SSCAN", s.keys.Name(key), 1, f)
	case SortedSet:
		return s.eachScanned(ctx, "ZSCAN", s.keys.Name(key), 2, f)
	case Hash:
		return s.eachScanned(ctx, "HSCAN", s.keys.Name(key), 2, f)
	default:
		return fmt.Errorf("%s has no ids", keyTable[key].name)
	}
}

// eachListed calls f with the elements of a list.
func (s *Store) eachListed(ctx context.Context, key string, f func(id string)) error {
	for first := int64(0); ; first += pageSize {
		page, err := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Lrange().Key(key).Start(first).Stop(first + pageSize - 1).Build()
		}).AsStrSlice()
		if err != nil {
			return err
		}
		for _, id := range page {
			f(id)
		}
		if len(page) < pageSize {
			return nil
		}
	}
}

// eachScanned calls f with the ids of a set or hash, whose elements are width values each.
func (s *Store) eachScanned(ctx context.Context, command, key string, width int, f func(id string)) error {
	for cursor := "0"; ; {
		at := cursor
		reply, err := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Arbitrary(command).Keys(key).Args(at, "COUNT", fmt.Sprint(pageSize)).ReadOnly()
		}).ToMessage()
		if err != nil {
			return err
		}
		var ids []string
		if cursor, ids, err = readPage(reply, width); err != nil {
			return err
		}
		for _, id := range ids {
			f(id)
		}
		if cursor == "0" {
			return nil
		}
	}
}

// readPage reads the reply of a scan. Each of its elements is width values, of which the
// first is an id.
func readPage(message rueidis.RedisMessage, width int) (cursor string, ids []string, err error) {
	const scan = "SCAN"
	reply, err := readArray(scan, message)
	if err != nil {
		return "", nil, err
	}
	if len(reply) != 2 {
		return "", nil, badReply(scan, "%d values", len(reply))
	}
	if cursor, err = readText(scan, reply[0]); err != nil {
		return "", nil, err
	}
	elements, err := readArray(scan, reply[1])
	if err != nil {
		return "", nil, err
	}
	if len(elements)%width != 0 {
		return "", nil, badReply(scan, "%d elements", len(elements))
	}
	for i := 0; i < len(elements); i += width {
		id, err := readText(scan, elements[i])
		if err != nil {
			return "", nil, err
		}
		ids = append(ids, id)
	}
	return cursor, ids, nil
}

// Page reads size ids of a key from number start on: of a list or a sorted set in their
// order, of a set in no particular one. A set is scanned from its beginning, scanCount
// elements at a time.
func (s *Store) Page(ctx context.Context, key Key, start, size, scanCount int) ([]string, error) {
	name := s.keys.Name(key)
	first, last := int64(start), int64(start+size-1)
	switch keyTable[key].kind {
	case Set:
		return s.scanSet(ctx, name, start, size, scanCount)
	case SortedSet:
		return s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Arbitrary("ZRANGE").Keys(name).Args(fmt.Sprint(first), fmt.Sprint(last)).ReadOnly()
		}).AsStrSlice()
	default:
		return s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Lrange().Key(name).Start(first).Stop(last).Build()
		}).AsStrSlice()
	}
}

// scanSet reads a page of a set. SSCAN may give an id more than once.
func (s *Store) scanSet(ctx context.Context, key string, start, size, scanCount int) ([]string, error) {
	seen := make(map[string]bool)
	var ids []string
	for cursor := uint64(0); ; {
		at := cursor
		entry, err := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Sscan().Key(key).Cursor(at).Count(int64(scanCount)).Build()
		}).AsScanEntry()
		if err != nil {
			return nil, err
		}
		for _, id := range entry.Elements {
			if seen[id] {
				continue
			}
			seen[id] = true
			if len(seen) > start {
				ids = append(ids, id)
			}
			if len(ids) == size {
				return ids, nil
			}
		}
		if cursor = entry.Cursor; cursor == 0 {
			return ids, nil
		}
	}
}

// Has reports whether an id is in a list, a set or a sorted set. In a list, it takes time
// in proportion to the list's length.
func (s *Store) Has(ctx context.Context, key Key, id string) (bool, error) {
	name, kind := s.keys.Name(key), keyTable[key].kind
	reply := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		switch kind {
		case Set:
			return b.Sismember().Key(name).Member(id).Build()
		case SortedSet:
			return b.Zscore().Key(name).Member(id).Build()
		default:
			return b.Lpos().Key(name).Element(id).Build()
		}
	})
	if rueidis.IsRedisNil(reply.Error()) {
		return false, nil
	}
	if err := reply.Error(); err != nil {
		return false, err
	}
	if kind == Set {
		return reply.AsBool()
	}
	return true, nil
}
