package sources

import (
	"os"
	"os/exec"
)

// childEnv names what the test binary does instead of testing when a test starts it again.
const childEnv = "SOURCES_TEST_CHILD"

// asChild makes run what a child of that name does with its argument. To be called by init.
func asChild(name string, run func(arg string)) {
	if os.Getenv(childEnv) == name {
		run(os.Args[len(os.Args)-1])
		os.Exit(0)
	}
}

// child is a command that does what asChild says of name.
func child(name, arg string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], arg)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}
