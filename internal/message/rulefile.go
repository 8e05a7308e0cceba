package message

import (
	"fmt"
	"io"
	"os"
	"time"
)

// StableInfo returns info if it can be relied on to detect the next change of the file, otherwise nil: a file that was
// modified just now may change again without a new modification time, so it must be read again. Take info before reading the
// file, so that a change in between is noticed.
func StableInfo(info os.FileInfo) os.FileInfo {
	if time.Since(info.ModTime()) < 2*time.Second {
		return nil
	}
	return info
}

// ReadBounded reads a regular file of at most limit bytes. Any other file could block for ever, or have no end.
func ReadBounded(path string, limit int64) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no ordinary file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, err
}
