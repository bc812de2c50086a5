// Package redistest starts real redis-server processes for tests and stops
// them again: one server, a cluster, a master with Sentinels, and a proxy that
// loses replies.
//
//	func TestRestart(t *testing.T) {
//		server := redistest.Start(t, "--appendonly", "yes")
//		server.Do(t, "SET", "k", "v")
//		server.Kill()
//		server.Restart(t)
//		server.Do(t, "GET", "k") // v
//	}
//
// Every server listens on 127.0.0.1 only and keeps its config, log and data in
// a t.TempDir of its own. Cleanup kills it, also when the test failed; on Linux
// the kernel kills it when the test process dies before cleanup.
//
// Methods that take a [testing.TB] end the test when they fail, so, like
// t.Fatal, they belong on the goroutine of the test.
//
// Redis 7.0 or later is needed. Read server.go first, then cluster.go,
// sentinel.go and proxy.go.
package redistest
