package beequeue

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// The oldest server whose commands suffice: RPOP with a count came with 6.2.
const oldestMajor, oldestMinor = 6, 2

// checkServer asks the server for its version. One that does not tell, such as
// miniredis or one whose ACL denies INFO, is taken as it is.
func (q *Queue) checkServer(ctx context.Context) error {
	info, err := q.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Info().Section("server").Build().SetSlot(q.keys.base)
	}).ToString()
	if err != nil {
		if passing(err) {
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
