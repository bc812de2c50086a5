package leaktest

import (
	"testing"
	"time"
)

// A goroutine that ends late is no leak, and one that does not end is.
func TestCheck(t *testing.T) {
	if code := Check(7); code != 7 {
		t.Errorf("the code of tests that failed became %d", code)
	}
	go func() { // longer than goleak waits by itself
		timer := time.NewTimer(2 * time.Second)
		<-timer.C
	}()
	if code := Check(0); code != 0 {
		t.Errorf("code %d for one that ends late", code)
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		<-quit
	}()
	if code := Check(0); code != 1 {
		t.Errorf("code %d for one that does not end", code)
	}
	close(quit)
	<-ended
}
