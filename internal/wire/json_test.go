package wire

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// Strings are written as encoding/json writes them.
func TestAppendString(t *testing.T) {
	t.Parallel()
	texts := []string{"", "created", "no route to host: 10.0.0.1:6379", "\u2028", "ü", "\xff", "a\xc3", "\U0001F600"}
	for c := range 256 {
		texts = append(texts, string([]byte{byte(c)}), "text"+string([]byte{byte(c)})+"text", string(rune(c)))
	}
	for _, text := range texts {
		want, err := json.Marshal(text)
		require.NoError(t, err)
		require.Equal(t, string(want), string(AppendString(nil, text)), "%q", text)
		require.Equal(t, "["+string(want), string(AppendString([]byte("["), text)), "%q", text)
		var b jsonBuilder
		b.text(text)
		require.Equal(t, string(want), b.String(), "%q", text)
	}
}
