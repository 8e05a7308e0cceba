package crash_test

import "syscall"

// bound makes a child end with the test, however the test ends.
func bound() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
