package evaluator

import "strings"

// checkHeaders refuses flags whose X-Feature-* headers would be the same one.
func (c *compiler) checkHeaders() {
	byHeader := make(map[string]*Flag, len(c.program.flags))
	for i := range c.program.flags {
		f := c.program.flags[i].def
		h := strings.ToLower(HeaderName(f.Name))
		if other := byHeader[h]; other != nil {
			c.errorf(f, f.Pos, "shares the header X-Feature-%s with flag %q; rename one", HeaderName(f.Name), other.Name)
			continue
		}
		byHeader[h] = f
	}
}

// HeaderName gives the part of a flag's header behind the prefix: `_` and `.`
// become `-`.
func HeaderName(flag string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return r
	}, flag)
}
