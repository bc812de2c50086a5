package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Event is a message of the channel `events`, which tells all processes what
// happened to a job.
type Event struct {
	ID   string          // the job
	Name string          // what happened: "succeeded", "retrying", "failed" or "progress"
	Data json.RawMessage // the result, the error's message or the progress; nil for none
}

// EncodeEvent returns the message that tells other processes about a job. The data
// may be nil; otherwise they must be JSON.
func EncodeEvent(id, name string, data json.RawMessage) string {
	var b jsonBuilder
	b.Grow(48 + len(id) + len(data))
	b.WriteString(`{"id":`)
	b.text(id)
	b.WriteString(`,"event":`)
	b.text(name)
	if len(data) > 0 {
		b.WriteString(`,"data":`)
		b.Write(data)
	}
	b.WriteByte('}')
	return b.String()
}

// DecodeEvent reads a message of the channel `events`. Ids are strings; a number is
// taken as its text. The error says what is wrong with the message.
func DecodeEvent(message string) (Event, error) {
	var raw struct {
		ID   json.RawMessage `json:"id"`
		Name string          `json:"event"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal([]byte(message), &raw); err != nil {
		return Event{}, fmt.Errorf("not an event: %w", err)
	}
	e := Event{Name: raw.Name, Data: raw.Data}
	if bytes.HasPrefix(raw.ID, []byte(`"`)) {
		if err := json.Unmarshal(raw.ID, &e.ID); err != nil {
			return Event{}, fmt.Errorf("id: %w", err)
		}
	} else if _, err := strconv.ParseFloat(string(raw.ID), 64); err == nil {
		e.ID = string(raw.ID)
	}
	if e.ID == "" || e.Name == "" {
		return Event{}, errors.New("no id or no event")
	}
	return e, nil
}
