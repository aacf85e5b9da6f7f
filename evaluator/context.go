package evaluator

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Names of the attributes that conditions read. TargetingKey is OpenFeature's
// other name for UserID wherever a context comes as JSON.
const (
	UserID       = "user_id"
	TargetingKey = "targetingKey"
	Region       = "region"
	AccountType  = "account_type"
	Device       = "device"
	BetaProgram  = "beta_program"
)

// Context is the evaluation context of one request: who asks, and from where.
// The zero Context is an anonymous one. Not safe for concurrent use while
// attributes are set.
type Context struct {
	// Environment is where the decision is made ("production"); flags with an
	// `environments` list are on only where it is listed.
	Environment string

	known [knownAttributes]Value
	extra []attribute
}

// Clone returns a context of its own with the same attributes.
func (c *Context) Clone() Context {
	out := *c
	out.extra = slices.Clone(c.extra)
	return out
}

type attribute struct {
	name  string
	value Value
}

// attr is a resolved attribute name: an index into known, or extraAttribute.
type attr int8

const (
	userIDAttr attr = iota
	regionAttr
	accountTypeAttr
	deviceAttr
	betaProgramAttr
	knownAttributes
	extraAttribute attr = -1
)

func lookupAttr(name string) attr {
	switch name {
	case UserID, TargetingKey:
		return userIDAttr
	case Region:
		return regionAttr
	case AccountType:
		return accountTypeAttr
	case Device:
		return deviceAttr
	case BetaProgram:
		return betaProgramAttr
	}
	return extraAttribute
}

// Attribute is an attribute's name, looked up once so that setting it for each
// request costs no comparison of names. The zero Attribute is user_id.
type Attribute struct {
	name string
	attr attr
}

// AttributeOf looks a name up.
func AttributeOf(name string) Attribute { return Attribute{name, lookupAttr(name)} }

// Set gives the attribute a value; a missing value removes it. The names
// user_id and targetingKey are the same attribute.
func (c *Context) Set(name string, v Value) { c.SetAttribute(AttributeOf(name), v) }

// SetAttribute is Set for a name that was looked up before.
func (c *Context) SetAttribute(a Attribute, v Value) {
	if a.attr != extraAttribute {
		c.known[a.attr] = v
		return
	}
	c.setExtra(a.name, v)
}

func (c *Context) setExtra(name string, v Value) {
	for i := range c.extra {
		if c.extra[i].name == name {
			c.extra[i].value = v
			return
		}
	}
	if !v.IsMissing() {
		c.extra = append(c.extra, attribute{name, v})
	}
}

// Get returns the attribute's value, the zero Value when it is missing.
func (c *Context) Get(name string) Value {
	if a := lookupAttr(name); a != extraAttribute {
		return c.known[a]
	}
	for i := range c.extra {
		if c.extra[i].name == name {
			return c.extra[i].value
		}
	}
	return Value{}
}

// TargetingKey returns the text that identifies whom flags are decided for;
// "" when nobody is known.
func (c *Context) TargetingKey() string { return c.known[userIDAttr].text }

// Reset empties the context and keeps its memory for the next request.
func (c *Context) Reset() {
	c.Environment = ""
	c.known = [knownAttributes]Value{}
	clear(c.extra)
	c.extra = c.extra[:0]
}

// AppendKey appends a text that is equal for contexts of equal values of the
// given attributes, and only for them. ok is false where a value is a list or
// an object.
func (c *Context) AppendKey(b []byte, attributes []Attribute) (key []byte, ok bool) {
	for _, a := range attributes {
		var v *Value
		if a.attr != extraAttribute {
			v = &c.known[a.attr]
		} else if x := c.Get(a.name); true {
			v = &x
		}
		kind := byte('s')
		switch v.raw.(type) {
		case nil:
		case bool:
			kind = 'b'
		case int64:
			kind = 'i'
		case float64: // a condition may tell the two apart, where their text does not
			kind = 'f'
		default:
			return b, false
		}
		b = append(b, kind, byte(len(v.text)), byte(len(v.text)>>8), byte(len(v.text)>>16))
		b = append(b, v.text...)
	}
	return b, true
}

// Attributes returns all attributes that are set, user_id among them.
func (c *Context) Attributes() map[string]any {
	out := make(map[string]any, len(c.extra)+int(knownAttributes))
	for i, name := range [...]string{UserID, Region, AccountType, Device, BetaProgram} {
		if v := c.known[i]; !v.IsMissing() {
			out[name] = v.Any()
		}
	}
	for _, a := range c.extra {
		if !a.value.IsMissing() {
			out[a.name] = a.value.Any()
		}
	}
	return out
}

// NewContext makes a context of attributes as encoding/json decodes them.
func NewContext(environment string, attributes map[string]any) *Context {
	c := &Context{Environment: environment}
	names := make([]string, 0, len(attributes))
	for name := range attributes {
		names = append(names, name)
	}
	slices.Sort(names) // targetingKey before user_id: ours wins when both are given
	for _, name := range names {
		if v := Of(attributes[name]); !v.IsMissing() {
			c.Set(name, v)
		}
	}
	return c
}

// UnmarshalJSON reads the attributes of a context from a JSON object; numbers
// keep every digit.
func (c *Context) UnmarshalJSON(text []byte) error {
	var m map[string]any
	if err := decodeNumbers(text, &m); err != nil {
		return fmt.Errorf("context: want an object of attributes: %w", err)
	}
	*c = *NewContext(c.Environment, m)
	return nil
}

// MarshalJSON writes the attributes as a JSON object.
func (c *Context) MarshalJSON() ([]byte, error) { return json.Marshal(c.Attributes()) }
