package leaktest

import (
	"testing"
	"time"
)

// A goroutine that ends late is no leak.
func TestCheck(t *testing.T) {
	if code := Check(7); code != 7 {
		t.Errorf("the code of tests that failed became %d", code)
	}
	go func() { // longer than goleak waits by itself
		timer := time.NewTimer(2 * time.Second)
		<-timer.C
	}()
	if code := Check(0); code != 0 {
		t.Errorf("code %d", code)
	}
}
