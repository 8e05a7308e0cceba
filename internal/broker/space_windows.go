package broker

import "golang.org/x/sys/windows"

// space is how many bytes this user may still write to a folder's file system, and how many the file system has.
func space(dir string) (free, size uint64, err error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(path, &free, &size, nil)
	}
	return free, size, err
}
