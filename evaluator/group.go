package evaluator

// group is an `exclusive` group: a targeting key gets at most one of its flags.
type group struct {
	name     string
	members  []int
	purposes []string // of each member's rank
}

// maxExclusive bounds a group: each of its flags has an answer for each other
// that may win, and is decided together with all of them.
const maxExclusive = 100

func (c *compiler) group() {
	byName := map[string]int{}
	for i := range c.program.flags {
		f := &c.program.flags[i]
		name := f.def.Exclusive
		if name == "" {
			continue
		}
		g, ok := byName[name]
		if !ok {
			g = len(c.program.groups)
			byName[name] = g
			c.program.groups = append(c.program.groups, group{name: name})
		}
		f.group = g
		c.program.groups[g].members = append(c.program.groups[g].members, i)
		c.program.groups[g].purposes = append(c.program.groups[g].purposes, "/exclusive/"+f.def.Name)
	}
	for _, g := range c.program.groups {
		if len(g.members) > maxExclusive {
			last := c.program.flags[g.members[maxExclusive]].def
			c.errorf(last, last.Pos, "exclusive: the group %q has %d flags, want at most %d", clip(g.name), len(g.members), maxExclusive)
			continue
		}
		for _, i := range g.members {
			f := &c.program.flags[i]
			f.excluded = make([]*Decision, len(g.members))
			for k, j := range g.members {
				f.excluded[k] = f.off(ReasonDefault, "exclusive:"+c.program.flags[j].def.Name)
			}
		}
	}
}
