package peer

import (
	"strconv"
	"strings"
	"time"
)

// Payload is a JSON object of n bytes.
func Payload(n int) []byte {
	const frame = `{"p":""}`
	return []byte(`{"p":"` + strings.Repeat("x", max(0, n-len(frame))) + `"}`)
}

// Record is what Bee-Queue stores for a job that was just created.
func Record(payload []byte) string {
	return `{"data":` + string(payload) + `,"options":{"timestamp":` + strconv.FormatInt(time.Now().UnixMilli(), 10) +
		`,"stacktraces":[]},"progress":0,"status":"created"}`
}
