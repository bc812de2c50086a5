package redistest

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestStartTLSWithout has a redis-server on the PATH that says what one says that was
// built without TLS. Others are tried by the tests of the library.
func TestStartTLSWithout(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the redis-server of this test is a shell script")
	}
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\"\n" +
		"echo 'Reading the configuration file, at line 2'\necho \">>> 'tls-port \\\"1\\\"'\"\n" +
		"echo 'Bad directive or wrong number of arguments'\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "redis-server"), []byte(script), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	for ci, skipped := range map[string]bool{"": true, "true": false} {
		t.Setenv("PATH", dir)
		t.Setenv("CI", ci)
		v := &verdict{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			StartTLS(v, &tls.Config{MinVersion: tls.VersionTLS12})
		}()
		<-done
		if v.skipped != skipped || v.failed == skipped {
			t.Errorf("with CI=%s: skipped %v, failed %v", ci, v.skipped, v.failed)
		}
	}
}
