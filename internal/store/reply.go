package store

import (
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// What scripts answer, and how it is read. A reply is taken as it should be or not at
// all, because whatever stands between a program and its Redis may change it.

// badReply returns the error for what a script, or a command, should not have answered.
func badReply(to, format string, args ...any) error {
	return fmt.Errorf("%s: unexpected reply: %s", to, fmt.Sprintf(format, args...))
}

// readText reads a string.
func readText(to string, message rueidis.RedisMessage) (string, error) {
	if !message.IsString() {
		return "", badReply(to, "no string")
	}
	return message.ToString()
}

// readTexts reads an array of strings.
func readTexts(to string, message rueidis.RedisMessage) ([]string, error) {
	values, err := readArray(to, message)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(values))
	for i := range values {
		if texts[i], err = readText(to, values[i]); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func readArray(to string, message rueidis.RedisMessage) ([]rueidis.RedisMessage, error) {
	if !message.IsArray() {
		return nil, badReply(to, "no array")
	}
	return message.ToArray()
}

// readNumbers reads an array of n integers, which may be written as text.
func readNumbers(to string, message rueidis.RedisMessage, n int) ([]int64, error) {
	values, err := readArray(to, message)
	if err != nil {
		return nil, err
	}
	if len(values) != n {
		return nil, badReply(to, "%d values", len(values))
	}
	numbers := make([]int64, n)
	for i := range values {
		if numbers[i], err = values[i].AsInt64(); err != nil {
			return nil, badReply(to, "value %d is no number", i+1)
		}
	}
	return numbers, nil
}

// milliseconds returns the duration that a script tells, at most CallRetention: nobody
// has to know that it was longer.
func milliseconds(ms int64) time.Duration {
	return time.Duration(min(ms, CallRetention.Milliseconds())) * time.Millisecond
}
