package caddymodule

import (
	"hash/maphash"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// contextCache keeps what recent contexts came to, by the attributes that it
// depends on. Safe for concurrent use.
type contextCache[V any] struct {
	reads []evaluator.Attribute
	kept  *lru.Cache[uint64, contextEntry[V]]
	seed  maphash.Seed
}

type contextEntry[V any] struct {
	key   string
	value V
}

// longestKey is the longest text of a context that is kept: what clients send must
// not fill the memory.
const longestKey = 512

// cacheBytes is about how much memory the contexts of a site take.
const cacheBytes = 2 << 20

// newContextCache makes room for what the flags come to, entryBytes a context;
// nil where that can depend on any attribute.
func newContextCache[V any](r *rules, flags []int, entryBytes int) *contextCache[V] {
	var reads []string
	for _, i := range flags {
		if i >= 0 {
			reads = append(reads, r.Reads(i)...)
			if len(r.Variants(i)) > 1000 {
				return nil // codes would not fit
			}
		}
	}
	slices.Sort(reads)
	reads = slices.Compact(reads)
	if slices.Contains(reads, "*") {
		return nil
	}
	c := &contextCache[V]{seed: maphash.MakeSeed()}
	for _, name := range reads {
		c.reads = append(c.reads, evaluator.AttributeOf(name))
	}
	c.kept, _ = lru.New[uint64, contextEntry[V]](min(4096, max(16, cacheBytes/entryBytes))) // fails for sizes below 1 only
	return c
}

// find returns what is kept of a context. key is what add wants where nothing is;
// nil for a context that cannot be kept. room is memory for it.
func (c *contextCache[V]) find(ctx *evaluator.Context, room []byte) (value V, key []byte, found bool) {
	key, ok := ctx.AppendKey(room, c.reads)
	if !ok || len(key) > longestKey {
		return value, nil, false
	}
	if e, ok := c.kept.Get(maphash.Bytes(c.seed, key)); ok && e.key == string(key) {
		return e.value, key, true
	}
	return value, key, false
}

// add keeps what a context came to.
func (c *contextCache[V]) add(key []byte, value V) {
	c.kept.Add(maphash.Bytes(c.seed, key), contextEntry[V]{string(key), value})
}
