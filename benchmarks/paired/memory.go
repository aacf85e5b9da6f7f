package main

import (
	"fmt"
	"io"
	"net/http"
)

// memoryEnv makes the child a single site: "plain" or "flags".
const memoryEnv = "PAIRED_MEMORY"

const usersSeen = 100_000

func memoryConfig(kind, origin string) string {
	if kind == "plain" {
		return "reverse_proxy " + origin + "\n"
	}
	return "feature_flags {\ncontext {\nuser_id header X-User-ID\nregion header X-Region\n}\nheaders list X-Features\n}\nreverse_proxy " + origin + "\n"
}

// compareMemory has both processes serve as many users and prints what they
// weigh, as they are and after a collection.
func compareMemory() error {
	pin(1)
	origin, err := startOrigin()
	if err != nil {
		return err
	}
	var resident, live [2]float64
	for i, kind := range []string{"plain", "flags"} {
		p, err := startProxy(origin, memoryEnv+"="+kind)
		if err != nil {
			return err
		}
		t := p.targets[0]
		t.Heads = heads("X-User-ID: user-%d\r\nX-Region: RO\r\n")
		for from := 0; from < usersSeen; from += len(t.Heads) {
			for k := range t.Heads {
				t.Heads[k] = fmt.Sprintf("X-User-ID: user-%d\r\nX-Region: RO\r\n", from+k)
			}
			if _, err := p.run(t, len(t.Heads)-1); err != nil {
				p.stop()
				return err
			}
		}
		resident[i] = p.rss()
		live[i], err = p.collect()
		if err != nil {
			p.stop()
			return err
		}
		fmt.Printf("%-6s resident %6.1f MB, after a collection %6.1f MB, live heap %6.1f MB\n", kind, resident[i], p.rss(), live[i])
		p.stop()
	}
	fmt.Printf("1,000 flags and %d users seen: %+.1f MB resident, %+.1f MB live heap (figure: 10 MB)\n", usersSeen, resident[1]-resident[0], live[1]-live[0])
	return nil
}

// collect has the process collect its garbage, and returns its live heap in MB.
func (p *proxyProcess) collect() (float64, error) {
	resp, err := http.Get("http://" + p.control + "/collect")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var n float64
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		_, err = fmt.Sscan(string(text), &n)
	}
	return n / (1 << 20), err
}
