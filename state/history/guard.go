package history

import (
	"fmt"
	"runtime/debug"
)

// guarded calls f, and makes a damage of a panic, and of a fault in what bbolt has mapped: of a file that was cut off
// meanwhile, or a disk that cannot be read. Without debug.SetPanicOnFault a fault ends the process; it is for this
// goroutine only.
func guarded(f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if p := recover(); p != nil {
			err = damaged("made bbolt panic: %.200s", fmt.Sprint(p))
		}
	}()
	return f()
}
