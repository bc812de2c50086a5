package wire

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEventRoundTrip(t *testing.T) {
	t.Parallel()
	for _, e := range []Event{
		{ID: "1", Name: "succeeded"},
		{ID: "é\"\n", Name: "progress", Data: json.RawMessage(`{"a":[1,2]}`)},
		{ID: "x", Name: "failed", Data: json.RawMessage(`"broken"`)},
	} {
		message := EncodeEvent(e.ID, e.Name, e.Data)
		require.True(t, json.Valid([]byte(message)), message)
		got, err := DecodeEvent(message)
		require.NoError(t, err)
		require.Equal(t, e, got)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, message := range []string{
		``, `{}`, `null`, `{"id":"1","event":"succeeded"}`, `{"id":1,"event":"failed","data":"x"}`, `{"id":1.5e3,"event":"progress","data":null}`,
		"{\"id\":\"\xff\",\"event\":\"\xfe\",\"data\":\"\xfd\"}", `{"id":"","event":""}`, `{"ID":"1","Event":"x"}`, ` {"id" : -0, "event":"<&>","data": [ ] } `,
	} {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message string) {
		e, err := DecodeEvent(message)
		if err != nil {
			return
		}
		if e.ID == "" || e.Name == "" {
			t.Fatalf("took %q for an event", message)
		}
		encoded := EncodeEvent(e.ID, e.Name, e.Data)
		if !json.Valid([]byte(encoded)) {
			t.Fatalf("wrote what is no JSON: %q", encoded)
		}
		again, err := DecodeEvent(encoded)
		if err != nil {
			t.Fatalf("cannot read what it wrote, %q: %v", encoded, err)
		}
		if !reflect.DeepEqual(e, again) {
			t.Fatalf("read %+v, wrote %q, read %+v", e, encoded, again)
		}
	})
}
