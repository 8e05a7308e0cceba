package message

import (
	"fmt"
	"io"
	"os"
	"time"
)

// StableInfo is a file as it was looked at before it was read, so that a change in between is seen the next time: nil, to be
// read again, while a further change could leave its time of modification as it is.
func StableInfo(info os.FileInfo) os.FileInfo {
	if time.Since(info.ModTime()) < 2*time.Second {
		return nil
	}
	return info
}

// ReadBounded reads a file of at most limit bytes. What is no ordinary file could block for ever, or have no end.
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
