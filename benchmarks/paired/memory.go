package main

import (
	"fmt"
	"io"
	"net/http"
)

const usersSeen = 100_000

// compareMemory has two proxies serve as many users and prints what they
// weigh, as they are and after a collection.
func compareMemory() error {
	lab, err := openLab()
	if err != nil {
		return err
	}
	defer lab.close()
	var resident, live [2]float64
	for i, kind := range []string{"memory, plain", "memory, flags"} {
		p, err := lab.startProxy(kind)
		if err != nil {
			return err
		}
		defer p.stop()
		for from := 0; from < usersSeen; from += 1000 {
			if err := p.ask(gets(users(from))); err != nil {
				return err
			}
		}
		resident[i] = p.rss()
		if live[i], err = p.collect(); err != nil {
			return err
		}
		fmt.Printf("%-14s resident %6.1f MB, after a collection %6.1f MB, live heap %6.1f MB\n", kind, resident[i], p.rss(), live[i])
	}
	fmt.Printf("1,000 flags and %d users seen: %+.1f MB resident, %+.1f MB live heap (figure: 10 MB)\n", usersSeen, resident[1]-resident[0], live[1]-live[0])
	return nil
}

// ask sends each of the requests, over one connection.
func (p *proxyProcess) ask(requests []string) error {
	c, err := dial(p.Targets[0].Address, requests)
	if err != nil {
		return err
	}
	defer c.close()
	return c.run(len(requests))
}

// collect has the process collect its garbage, and returns its live heap in MB.
func (p *proxyProcess) collect() (float64, error) {
	resp, err := http.Get("http://" + p.Control + "/collect")
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
