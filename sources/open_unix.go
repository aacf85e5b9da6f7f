//go:build unix

package sources

import "syscall"

// openFlags keep a named pipe that took the place of a file from holding the opening up.
const openFlags = syscall.O_NONBLOCK
