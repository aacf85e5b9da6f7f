package evaluator

import (
	"fmt"
	"maps"
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
				if m == i {
					continue
				}
				for _, d := range p.flags[m].dependencies {
					to = append(to, d.index)
				}
			}
		}
		return to
	}
	for _, cycle := range cycles(len(p.flags), edges) {
		f := p.flags[cycle[0]].def
		path := []string{f.Name}
		why := ""
		for k, to := range cycle[1:] {
			from := &p.flags[cycle[k]]
			if !from.dependsOn(to) { // by way of another of its group
				for _, m := range p.groups[from.group].members {
					if p.flags[m].dependsOn(to) {
						path = append(path, p.flags[m].def.Name)
						why = fmt.Sprintf("; flags of the exclusive group %q are decided together", clip(from.def.Exclusive))
						break
					}
				}
			}
			path = append(path, p.flags[to].def.Name)
		}
		c.errorf(f, f.Pos, "depends_on: cycle %s%s", joinPath(path), why)
	}
}

func (f *compiled) dependsOn(index int) bool {
	return slices.ContainsFunc(f.dependencies, func(d dependency) bool { return d.index == index })
}

// joinPath writes a path, of a long one its ends.
func joinPath(names []string) string {
	const most = 20
	if n := len(names); n > most {
		names = slices.Concat(names[:most/2], []string{fmt.Sprintf("… %d more …", n-most)}, names[n-most/2:])
	}
	return strings.Join(names, " → ")
}

func (c *compiler) checkSegmentCycles() {
	names := c.segmentNames()
	edges := func(i int) (to []int) {
		if s := c.program.segments[segmentVariable(names[i])]; s != nil && s.when != nil {
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
		c.segmentErrorf(c.segments[path[0]], "cycle %s", joinPath(path))
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

// close adds to each flag the attributes that the flags it waits for read.
func (p *Program) close() { p.reads = closeReads(p.flags, p.groups, nil) }

// closeReads returns the attributes that each flag's decision can depend on:
// its own, those in more, and those of the flags it waits for.
func closeReads(flags []compiled, groups []group, more map[int]string) [][]string {
	c := readsCloser{flags, groups, more, make([][]string, len(flags)), make([][]string, len(groups))}
	for i := range flags {
		c.flag(i)
	}
	return c.done
}

// readsCloser goes down to each flag and group once; there are no cycles.
type readsCloser struct {
	flags  []compiled
	groups []group
	more   map[int]string
	done   [][]string // by flag; nil: not yet
	shared [][]string // by group
}

func (c *readsCloser) flag(i int) []string {
	if c.done[i] == nil {
		reads := c.alone(i)
		if g := c.flags[i].group; g >= 0 {
			reads = append(reads, c.group(g)...)
		}
		c.done[i] = sortedUnique(reads)
	}
	return c.done[i]
}

// alone is what a flag's decision without regard to its group depends on.
func (c *readsCloser) alone(i int) []string {
	reads := append([]string{}, c.flags[i].reads...)
	if name, ok := c.more[i]; ok {
		reads = append(reads, name)
	}
	for _, d := range c.flags[i].dependencies {
		reads = append(reads, c.flag(d.index)...)
	}
	return reads
}

func (c *readsCloser) group(g int) []string {
	if c.shared[g] == nil {
		reads := []string{}
		for _, m := range c.groups[g].members {
			reads = append(reads, c.alone(m)...)
		}
		c.shared[g] = sortedUnique(reads)
	}
	return c.shared[g]
}

// Concerns returns the flags whose definition or state flag i's decision can depend
// on, i among them, in no order. Must not be changed.
func (r *Ruleset) Concerns(i int) []int {
	r.program.concernsOnce.Do(r.program.findConcerns)
	return r.program.concerns[i]
}

// findConcerns goes from each flag to all that it leads to. Members of a group lead to
// the same.
func (p *Program) findConcerns() {
	p.concerns = make([][]int, len(p.flags))
	seen := make([]int, len(p.flags)) // by flag: the one whose search has seen it, from 1
	byGroup := make([][]int, len(p.groups))
	for i := range p.flags {
		g := p.flags[i].group
		if g >= 0 && byGroup[g] != nil {
			p.concerns[i] = byGroup[g]
			continue
		}
		found := []int{i}
		seen[i] = i + 1
		add := func(j int) {
			if seen[j] != i+1 {
				seen[j] = i + 1
				found = append(found, j)
			}
		}
		for k := 0; k < len(found); k++ {
			f := &p.flags[found[k]]
			for _, d := range f.dependencies {
				add(d.index)
			}
			if f.group >= 0 {
				for _, m := range p.groups[f.group].members {
					add(m)
				}
			}
			if j, ok := p.index[f.def.FallbackFor]; ok {
				add(j)
			}
		}
		p.concerns[i] = found
		if g >= 0 {
			byGroup[g] = found
		}
	}
}

// Segments returns the segments that rules can ask for, in the order of their names.
func (r *Ruleset) Segments() []*Segment {
	out := make([]*Segment, 0, len(r.segments))
	for _, name := range slices.Sorted(maps.Keys(r.segments)) {
		out = append(out, r.segments[name].def)
	}
	return out
}

func sortedUnique(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
