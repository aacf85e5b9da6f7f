// Command paired measures what a request costs with the plugin against the same
// request through plain Caddy: CPU time of the proxy's process and heap
// allocations, in pairs within one run and one process.
//
//	go run ./paired [-cycles 75] [-slice 1600] [-only "name;name"]
//	go run ./paired -memory
//	go run ./paired -profile NAME
//
// The proxy runs alone on one core, the origin and the generator on another.
// In each cycle every target gets a slice of requests, in random order; the
// ratio is taken within the cycle, and its median with a 95 % interval is
// printed.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	if os.Getenv(proxyEnv) != "" {
		if err := runProxy(); err != nil {
			log.Fatal(err)
		}
		return
	}
	cycles := flag.Int("cycles", 75, "cycles")
	slice := flag.Int("slice", 1600, "requests a target and cycle")
	only := flag.String("only", "", "targets to measure, by semicolon; plain ones are always measured")
	profile := flag.String("profile", "", "instead of measuring, send requests to this target for 20 s and write its CPU profile to cpu.pprof")
	memory := flag.Bool("memory", false, "instead, compare the memory of plain Caddy with that of 1,000 flags and 100,000 users seen")
	flag.Parse()
	if *memory {
		if err := compareMemory(); err != nil {
			log.Fatal(err)
		}
		return
	}
	if *profile != "" {
		if err := writeProfile(*profile); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := measure(*cycles, *slice, *only); err != nil {
		log.Fatal(err)
	}
}

// startLab starts the origin in this process, on a core of its own, and the
// proxy in another.
func startLab() (*proxyProcess, error) {
	pin(1)
	origin, err := startOrigin()
	if err != nil {
		return nil, err
	}
	return startProxy(origin)
}

func measure(cycles, slice int, only string) error {
	proxy, err := startLab()
	if err != nil {
		return err
	}
	defer proxy.stop()

	var chosen []*target
	for _, t := range proxy.targets {
		if only == "" || t.Plain == "" || slices.Contains(strings.Split(only, ";"), t.Name) {
			chosen = append(chosen, t)
		}
	}
	for _, t := range chosen { // warm up
		if _, err := proxy.run(t, slice); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	for c := range cycles {
		order := rand.Perm(len(chosen))
		for _, i := range order {
			s, err := proxy.run(chosen[i], slice)
			if err != nil {
				return fmt.Errorf("%s: %w", chosen[i].Name, err)
			}
			chosen[i].samples = append(chosen[i].samples, s)
		}
		if c%10 == 9 {
			fmt.Fprintf(os.Stderr, "%d of %d cycles\n", c+1, cycles)
		}
	}
	fmt.Printf("%-28s %10s %10s %20s %12s %8s\n", "target", "µs CPU", "allocs", "ratio (95 %)", "+allocs", "figure")
	for _, t := range chosen {
		var base *target
		for _, b := range chosen {
			if b.Name == t.Plain {
				base = b
			}
		}
		cpu, allocs := median(t.samples, func(s sample) float64 { return s.cpu }), median(t.samples, func(s sample) float64 { return s.allocs })
		if base == nil {
			fmt.Printf("%-28s %10.2f %10.1f\n", t.Name, cpu, allocs)
			continue
		}
		ratios := make([]float64, len(t.samples))
		more := make([]float64, len(t.samples))
		for i := range t.samples {
			ratios[i] = t.samples[i].cpu / base.samples[i].cpu
			more[i] = t.samples[i].allocs - base.samples[i].allocs
		}
		m, lo, hi := interval(ratios)
		am, _, _ := interval(more)
		fmt.Printf("%-28s %10.2f %10.1f   %.3f (%.3f–%.3f) %+12.1f %8s\n", t.Name, cpu, allocs, m, lo, hi, am, t.Figure)
	}
	fmt.Printf("resident memory of the proxy: %.1f MB\n", proxy.rss())
	return nil
}

// writeProfile takes a CPU profile of one target at work.
func writeProfile(name string) error {
	proxy, err := startLab()
	if err != nil {
		return err
	}
	defer proxy.stop()
	i := slices.IndexFunc(proxy.targets, func(t *target) bool { return t.Name == name })
	if i < 0 {
		return fmt.Errorf("no target %q", name)
	}
	done := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + proxy.control + "/debug/pprof/profile?seconds=20")
		if err != nil {
			done <- err
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil {
			err = os.WriteFile("cpu.pprof", text, 0o600)
		}
		done <- err
	}()
	for {
		select {
		case err := <-done:
			return err
		default:
			if _, err := proxy.run(proxy.targets[i], 1600); err != nil {
				return err
			}
		}
	}
}

func median(s []sample, of func(sample) float64) float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = of(s[i])
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// interval gives the median and the order statistics that hold it with 95 %.
func interval(v []float64) (m, lo, hi float64) {
	slices.Sort(v)
	n := float64(len(v))
	half := 0.98 * math.Sqrt(n)
	at := func(i float64) float64 { return v[max(0, min(len(v)-1, int(i)))] }
	return v[len(v)/2], at(n/2 - half), at(n/2 + half)
}

// sample is what one slice cost, a request.
type sample struct{ cpu, allocs float64 }

func pin(core int) {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		log.Printf("not pinned to core %d: %v", core, err)
	}
}

func startOrigin() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	body := []byte(strings.Repeat("x", 512))
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	}()
	return l.Addr().String(), nil
}

type proxyProcess struct {
	cmd     *exec.Cmd
	control string
	targets []*target
}

func startProxy(origin string, env ...string) (*proxyProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &proxyProcess{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), proxyEnv+"="+origin)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	var hello greeting
	if err := json.NewDecoder(out).Decode(&hello); err != nil {
		return nil, fmt.Errorf("the proxy did not start: %w", err)
	}
	p.control, p.targets = hello.Control, hello.Targets
	return p, nil
}

func (p *proxyProcess) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// cpu is the process' CPU time, exact to nanoseconds.
func (p *proxyProcess) cpu() time.Duration {
	clock := int32(^p.cmd.Process.Pid)<<3 | 2 // CPUCLOCK_SCHED of the process
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		log.Fatalf("reading CPU time: %v", err)
	}
	return time.Duration(ts.Nano())
}

func (p *proxyProcess) mallocs() float64 {
	resp, err := http.Get("http://" + p.control + "/mallocs")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var n float64
	if _, err := fmt.Fscan(resp.Body, &n); err != nil {
		log.Fatal(err)
	}
	return n
}

func (p *proxyProcess) rss() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}

// run sends n requests to a target over one connection.
func (p *proxyProcess) run(t *target, n int) (sample, error) {
	c, err := dial(t)
	if err != nil {
		return sample{}, err
	}
	defer c.close()
	if err := c.do(0); err != nil { // the connection's own cost stays out
		return sample{}, err
	}
	mallocs, before := p.mallocs(), p.cpu()
	for i := range n {
		if err := c.do(i + 1); err != nil {
			return sample{}, err
		}
	}
	used := p.cpu() - before
	more := p.mallocs() - mallocs
	return sample{float64(used.Nanoseconds()) / 1000 / float64(n), more / float64(n)}, nil
}
