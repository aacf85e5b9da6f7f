package evaluator

import (
	"fmt"
	"slices"
	"strings"
)

// checkCycles finds flags that would have to be decided before themselves: by
// depends_on, or because a flag of an exclusive group needs all of the group's.
func (c *compiler) checkCycles() {
	p := c.program
	edges := func(i int) (to []int) {
		for _, d := range p.flags[i].dependencies {
			to = append(to, d.index)
		}
		if g := p.flags[i].group; g >= 0 {
			for _, m := range p.groups[g].members {
				for _, d := range p.flags[m].dependencies {
					to = append(to, d.index)
				}
			}
		}
		return to
	}
	for _, cycle := range cycles(len(p.flags), edges) {
		f := p.flags[cycle[0]].def
		names := make([]string, len(cycle))
		for i, n := range cycle {
			names[i] = p.flags[n].def.Name
		}
		via := "depends_on"
		for _, n := range cycle {
			if p.flags[n].group >= 0 {
				via = "depends_on (with the flags of its exclusive group)"
			}
		}
		c.errorf(f, f.Pos, "%s: cycle %s", via, strings.Join(names, " → "))
	}
}

func (c *compiler) checkSegmentCycles() {
	names := c.segmentNames()
	edges := func(i int) (to []int) {
		if s := c.program.segments[names[i]]; s != nil && s.when != nil {
			for _, used := range s.when.uses {
				if j := slices.Index(names, used); j >= 0 {
					to = append(to, j)
				}
			}
		}
		return to
	}
	for _, cycle := range cycles(len(names), edges) {
		path := make([]string, len(cycle))
		for i, n := range cycle {
			path[i] = names[n]
		}
		s := c.segments[path[0]]
		c.errs = append(c.errs, &Error{Source: s.Source, Pos: s.Pos, Message: fmt.Sprintf("segments.%s: cycle %s", s.Name, strings.Join(path, " → "))})
	}
}

// cycles returns, for each knot of nodes that lead back to themselves, one
// path from a node to itself.
func cycles(n int, edges func(int) []int) (found [][]int) {
	const (
		unseen = iota
		open
		done
	)
	state := make([]uint8, n)
	var path []int
	var visit func(int)
	visit = func(i int) {
		state[i] = open
		path = append(path, i)
		for _, j := range edges(i) {
			switch state[j] {
			case unseen:
				visit(j)
			case open:
				from := slices.Index(path, j)
				found = append(found, append(slices.Clone(path[from:]), j))
			}
		}
		path = path[:len(path)-1]
		state[i] = done
	}
	for i := range n {
		if state[i] == unseen {
			visit(i)
		}
	}
	return found
}

// closeReads adds to each flag the attributes that the flags it waits for read.
func (c *compiler) closeReads() {
	p := c.program
	own := make([][]string, len(p.flags))
	for i := range p.flags {
		own[i] = p.flags[i].reads
	}
	for i := range p.flags {
		seen := make([]bool, len(p.flags))
		todo := []int{i}
		var reads []string
		for len(todo) > 0 {
			j := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if seen[j] {
				continue
			}
			seen[j] = true
			reads = append(reads, own[j]...)
			for _, d := range p.flags[j].dependencies {
				todo = append(todo, d.index)
			}
			if g := p.flags[j].group; g >= 0 {
				todo = append(todo, p.groups[g].members...)
			}
		}
		slices.Sort(reads)
		p.flags[i].reads = slices.Compact(reads)
	}
}
