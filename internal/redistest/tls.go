package redistest

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
)

var errNoTLS = errors.New("it was built without TLS")

// StartTLS starts one server as Start does, which speaks TLS alone: args have its
// certificates ("--tls-cert-file", ...), and config is what this package connects with.
// It skips the test, or fails it as Available does, where redis-server was built
// without TLS.
func StartTLS(tb testing.TB, config *tls.Config, args ...string) *Server {
	tb.Helper()
	return start(tb, config, nil, append(defaults(), args...))
}

// lacksTLS tells whether the server ended because it does not know what TLS is.
func (s *Server) lacksTLS() bool {
	return s.secure != nil && strings.Contains(s.logTail(), ">>> 'tls-port ")
}
