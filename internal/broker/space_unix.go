//go:build unix

package broker

import "golang.org/x/sys/unix"

// space is how many bytes of a folder's file system this user may still write, and how many it has.
func space(dir string) (free, size uint64, err error) {
	var s unix.Statfs_t
	err = unix.Statfs(dir, &s)
	block := uint64(s.Bsize) //nolint:gosec,nolintlint // never negative; its type differs between systems
	return s.Bavail * block, s.Blocks * block, err
}
