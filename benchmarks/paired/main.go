// Command paired measures what a request costs with the plugin against the same
// request through plain Caddy: CPU time of the proxy's process and heap
// allocations, in pairs within one run and one process.
//
//	go run ./paired [-rounds 5] [-cycles 200] [-slice 400] [-clients 1] [-only "name;name"]
//	go run ./paired -memory
//	go run ./paired -profile NAME
//	go run ./paired -latency -rounds 3 -cycles 40
//
// One client asks one request after the other, so that the proxy falls asleep and
// wakes up in between, as one at little load does; with -clients 16 its core is full,
// and a request costs what it does under load.
//
// The proxy runs alone on one core, the origin and the generator on another.
// In each cycle every target gets a slice of requests, in random order; the
// ratio is taken within the cycle, since the machine may be faster in the next.
// A slice is long enough for garbage to be collected by whom it belongs to.
// Each round is a new process: where things happen to lie in memory makes a
// target faster or slower for as long as a process lives. The mean of the
// middle half of the logarithms of the ratios is printed with its 95 % interval;
// "plain again" shows what the figures are worth.
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
	if os.Getenv(sitesEnv) != "" {
		if err := runProxy(); err != nil {
			log.Fatal(err)
		}
		return
	}
	rounds := flag.Int("rounds", 5, "processes, one after the other")
	cycles := flag.Int("cycles", 200, "cycles a process")
	slice := flag.Int("slice", 400, "requests a target and cycle")
	clients := flag.Int("clients", 1, "connections to a target, which share a slice")
	only := flag.String("only", "", "targets to measure, by semicolon; plain ones are always measured")
	profile := flag.String("profile", "", "instead of measuring, send requests to this target for 20 s and write its CPU profile to cpu.pprof")
	memory := flag.Bool("memory", false, "instead, compare the memory of plain Caddy with that of 1,000 flags and 100,000 users seen")
	latency := flag.Bool("latency", false, "instead, compare how long requests take with and without a mirror, at full load")
	flag.Parse()
	if *latency {
		if err := compareLatency(*rounds, *cycles); err != nil {
			log.Fatal(err)
		}
		return
	}
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
	if err := measure(*rounds, *cycles, *slice, *clients, *only); err != nil {
		log.Fatal(err)
	}
}

// result is what a target came to.
type result struct {
	site
	beside *result   // plain, in the same processes; nil: there is none
	cpu    []float64 // µs a request, by cycle
	allocs []float64 // a request, by round
}

func measure(rounds, cycles, slice, clients int, only string) error {
	lab, err := openLab()
	if err != nil {
		return err
	}
	defer lab.close()
	chosen, err := choose(measured(lab.origin), only)
	if err != nil {
		return err
	}
	var together []*result
	for _, r := range chosen {
		if !r.apart {
			together = append(together, r)
		}
	}
	for k := range rounds {
		if err := lab.round(together, cycles, slice, clients); err != nil {
			return err
		}
		for _, r := range chosen {
			if !r.apart {
				continue
			}
			if err := lab.round([]*result{r.beside, r}, cycles, slice, clients); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "%d of %d rounds\n", k+1, rounds)
	}
	fmt.Printf("%-28s %10s %10s %22s %9s %8s\n", "target", "µs CPU", "allocs", "ratio (95 %)", "+allocs", "figure")
	for _, r := range chosen {
		fmt.Printf("%-28s %10.2f %10.1f", r.name, median(r.cpu), median(r.allocs))
		if r.beside != nil {
			fmt.Printf("    %s %+9.1f %8s", ratio(r.cpu, r.beside.cpu), median(r.allocs)-median(r.beside.allocs), r.figure)
		}
		fmt.Println()
	}
	return nil
}

// choose picks the sites asked for, and those that they are compared with.
func choose(all []site, only string) (chosen []*result, err error) {
	wanted := map[string]bool{}
	for _, name := range strings.Split(only, ";") {
		i := slices.IndexFunc(all, func(s site) bool { return s.name == name })
		if i < 0 && only != "" {
			return nil, fmt.Errorf("no target %q", name)
		} else if i >= 0 {
			wanted[name], wanted[all[i].plain] = true, true
		}
	}
	for _, s := range all {
		if only == "" || wanted[s.name] {
			chosen = append(chosen, &result{site: s})
		}
	}
	for _, r := range chosen {
		i := slices.IndexFunc(chosen, func(b *result) bool { return b.name == r.plain })
		switch {
		case i < 0:
		case r.apart:
			r.beside = &result{site: chosen[i].site}
		default:
			r.beside = chosen[i]
		}
	}
	return chosen, nil
}

// round measures every target in a process of this round.
func (l *lab) round(chosen []*result, cycles, slice, clients int) error {
	names := make([]string, len(chosen))
	for i, r := range chosen {
		names[i] = r.name
	}
	proxy, err := l.startProxy(names...)
	if err != nil {
		return err
	}
	defer proxy.stop()
	connections := make([]crowd, len(chosen))
	for i, t := range proxy.Targets {
		if connections[i], err = dialAll(t, clients); err != nil {
			return err
		}
		defer connections[i].close()
		before := 0.0
		for k, n := range []int{1000, 1600} { // warm up, then count
			if k == 1 {
				before = proxy.mallocs()
			}
			if err := connections[i].run(n); err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
		}
		chosen[i].allocs = append(chosen[i].allocs, (proxy.mallocs()-before)/1600)
	}
	for range cycles {
		for _, i := range rand.Perm(len(chosen)) {
			before := proxy.cpu()
			if err := connections[i].run(slice); err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
			used := proxy.cpu() - before
			chosen[i].cpu = append(chosen[i].cpu, float64(used.Nanoseconds())/1000/float64(slice))
		}
	}
	return nil
}

// writeProfile takes a CPU profile of one target at work.
func writeProfile(name string) error {
	lab, err := openLab()
	if err != nil {
		return err
	}
	defer lab.close()
	proxy, err := lab.startProxy(name)
	if err != nil {
		return err
	}
	defer proxy.stop()
	c, err := dial(proxy.Targets[0].Address, proxy.Targets[0].Requests)
	if err != nil {
		return err
	}
	defer c.close()
	done := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + proxy.Control + "/debug/pprof/profile?seconds=20")
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
			if err := c.run(1600); err != nil {
				return err
			}
		}
	}
}

// ratio writes that of two targets, measured in pairs, with its interval.
func ratio(v, plain []float64) string {
	logs := make([]float64, len(v))
	for k := range logs {
		logs[k] = math.Log(v[k] / plain[k])
	}
	m, half := midmean(logs)
	return fmt.Sprintf("%.3f (%.3f–%.3f)", math.Exp(m), math.Exp(m-half), math.Exp(m+half))
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// midmean gives the mean of the middle half and half the width of its 95 %
// interval, by the winsorized variance: Tukey, McLaughlin, "Less vulnerable
// confidence and significance procedures for location", Sankhyā A 25 (1963).
func midmean(v []float64) (m, half float64) {
	v = slices.Sorted(slices.Values(v))
	n, cut := len(v), len(v)/4
	for _, x := range v[cut : n-cut] {
		m += x / float64(n-2*cut)
	}
	for i := range v {
		v[i] = min(max(v[i], v[cut]), v[n-1-cut])
	}
	var mean, squares float64
	for _, x := range v {
		mean += x / float64(n)
	}
	for _, x := range v {
		squares += (x - mean) * (x - mean)
	}
	kept := float64(n-2*cut) / float64(n)
	return m, 1.96 * math.Sqrt(squares/float64(max(n-1, 1))/float64(n)) / kept
}

func pin(core int) {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		log.Printf("not pinned to core %d: %v", core, err)
	}
}

// hangs is the path at which the origin does not answer.
const hangs = "/hangs"

func startOrigin() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	body := []byte(strings.Repeat("x", 512))
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == hangs {
				<-r.Context().Done()
			}
			_, _ = w.Write(body)
		}))
	}()
	return l.Addr().String(), nil
}

// lab is the origin, in this process on a core of its own, and a directory for
// the proxies.
type lab struct{ origin, dir string }

func openLab() (*lab, error) {
	pin(1)
	origin, err := startOrigin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "paired-*")
	return &lab{origin, dir}, err
}

func (l *lab) close() { _ = os.RemoveAll(l.dir) }

// proxyProcess is a proxy at work.
type proxyProcess struct {
	greeting
	cmd *exec.Cmd
}

// greeting is what a proxy tells when it is ready.
type greeting struct {
	Control string // address
	Targets []target
}

// target is a site at work, and the requests to ask it with, in turn.
type target struct {
	Address  string
	Requests []string
}

func (l *lab) startProxy(sites ...string) (*proxyProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, "proxy-*")
	if err != nil {
		return nil, err
	}
	p := &proxyProcess{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), originEnv+"="+l.origin, sitesEnv+"="+strings.Join(sites, ";"), dirEnv+"="+dir)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(out).Decode(&p.greeting); err != nil {
		p.stop()
		return nil, fmt.Errorf("the proxy did not start: %w", err)
	}
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
	resp, err := http.Get("http://" + p.Control + "/mallocs")
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
