package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// The oldest server that has all commands: RPOP with a count came with 6.2.
const oldestMajor, oldestMinor = 6, 2

// CheckServer asks the server for its version, and returns ErrUnsupportedServer if that is
// older than Redis 6.2. A server that does not tell is taken as it is: miniredis, or one
// whose ACL denies INFO.
func (s *Store) CheckServer(ctx context.Context) error {
	info, err := s.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Info().Section("server").Build().SetSlot(s.keys.base)
	}).ToString()
	if err != nil {
		if transient(err) {
			return gaveUp(ctx, err, false)
		}
		return nil
	}
	for line := range strings.Lines(info) {
		version, found := strings.CutPrefix(strings.TrimSpace(line), "redis_version:")
		if !found {
			continue
		}
		major, minor := parseVersion(version)
		if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
			return fmt.Errorf("%w: it is Redis %s, beequeue needs %d.%d or later", ErrUnsupportedServer, version, oldestMajor, oldestMinor)
		}
		return nil
	}
	return nil
}

func parseVersion(version string) (major, minor int) {
	parts := strings.SplitN(version, ".", 3)
	major, _ = strconv.Atoi(parts[0])
	if len(parts) > 1 {
		minor, _ = strconv.Atoi(parts[1])
	}
	return major, minor
}
