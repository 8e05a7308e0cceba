//go:build unix

package broker

import "golang.org/x/sys/unix"

// space is how many bytes this user may still write to a folder's file system, and how many the file system has.
func space(dir string) (free, size uint64, err error) {
	var s unix.Statfs_t
	err = unix.Statfs(dir, &s)
	block := uint64(s.Bsize) //nolint:gosec,nolintlint // never negative; its type differs between systems
	return s.Bavail * block, s.Blocks * block, err
}
