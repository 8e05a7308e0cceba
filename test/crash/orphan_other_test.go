//go:build !linux

package crash_test

import "syscall"

// bound makes a child end with the test on Linux; elsewhere a killed test leaves its children to the operator.
func bound() *syscall.SysProcAttr { return nil }
