package actor

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// A Tally counts, for millions of jobs, what a ledger would tell line by line: a
// file in the memory of all processes, which keeps what a killed one has counted.
// Each job has a word, with the saves in its lower half and the ends in its upper.
type Tally struct{ words []uint32 }

// NewTally makes the file, for so many jobs.
func NewTally(file string, jobs int) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("tally: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(4 * int64(jobs)); err != nil {
		return fmt.Errorf("tally: %w", err)
	}
	return nil
}

// OpenTally maps the file into memory, until the process ends.
func OpenTally(file string) (*Tally, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("tally: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("tally: %w", err)
	}
	bytes, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("tally: map %s: %w", file, err)
	}
	return &Tally{unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(bytes))), len(bytes)/4)}, nil
}

// Saved counts an acknowledged save of job n.
func (t *Tally) Saved(n int) { atomic.AddUint32(&t.words[n], 1) }

// Ended counts a run of job n that came to its end.
func (t *Tally) Ended(n int) { atomic.AddUint32(&t.words[n], 1<<16) }

// Of gives what was counted for job n.
func (t *Tally) Of(n int) (saves, ends int) {
	word := atomic.LoadUint32(&t.words[n])
	return int(word & 0xffff), int(word >> 16)
}

// Len is the number of jobs there is room for.
func (t *Tally) Len() int { return len(t.words) }
