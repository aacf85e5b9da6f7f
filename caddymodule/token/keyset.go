package token

import "slices"

// maxAttempts bounds the keys tried for one token, so that a set of a thousand keys without ids does not turn each bad
// token into a thousand signature checks.
const maxAttempts = 16

// keySet is an immutable set of keys.
type keySet struct {
	// epoch counts the times that a key was removed or changed. A token verified in an earlier epoch is verified anew.
	epoch  uint64
	keys   []*key
	ids    map[string]bool
	public bool // there is a key other than a secret
	byKind [kindCount]kindKeys
}

type kindKeys struct {
	all       []*key
	byID      map[string][]*key
	anonymous []*key // those without an id
}

// newKeySet builds the set that follows previous, which is nil for the first one.
func newKeySet(keys []*key, previous *keySet) *keySet {
	s := &keySet{keys: keys, ids: make(map[string]bool)}
	for _, k := range keys {
		group := &s.byKind[k.kind]
		group.all = append(group.all, k)
		s.public = s.public || k.kind != kindSecret
		if k.id == "" {
			group.anonymous = append(group.anonymous, k)
			continue
		}
		if group.byID == nil {
			group.byID = make(map[string][]*key)
		}
		group.byID[k.id] = append(group.byID[k.id], k)
		s.ids[k.id] = true
	}
	if previous != nil {
		s.epoch = previous.epoch
		if !previous.within(keys) {
			s.epoch++
		}
	}
	return s
}

// within reports whether every key of the set is still among keys.
func (s *keySet) within(keys []*key) bool {
	for _, k := range s.keys {
		if !slices.ContainsFunc(keys, k.same) {
			return false
		}
	}
	return true
}

// equal reports whether the set holds exactly keys.
func (s *keySet) equal(keys []*key) bool {
	return len(s.keys) == len(keys) && s.within(keys) && newKeySet(keys, nil).within(s.keys)
}

// verify checks the signature with the keys that alg and kid allow. It returns nil, ErrSignature, ErrAlgorithm,
// ErrNoKeys or ErrUnknownKey. A kid, when the set has ids for this kind of key, is looked up and nothing else: it
// never names a file or an address.
func (s *keySet) verify(a algorithm, kid, signed string, signature []byte) error {
	group := &s.byKind[a.kind]
	candidates, named := group.all, false
	if kid != "" && group.byID != nil {
		if candidates, named = group.byID[kid]; !named {
			candidates = group.anonymous
		}
	}

	attempts := 0
	for _, k := range candidates {
		if k.algorithm != "" && k.algorithm != a.name {
			continue
		}
		if attempts++; attempts > maxAttempts {
			break
		}
		if a.method.Verify(signed, signature, k.material) == nil {
			return nil
		}
	}

	switch {
	case a.kind != kindSecret && !s.public:
		return ErrNoKeys
	case named && attempts == 0, !named && kid != "" && s.ids[kid]:
		return ErrAlgorithm // the key is known and not for this algorithm
	case attempts == 0, !named && kid != "" && group.byID != nil:
		return ErrUnknownKey
	}
	return ErrSignature
}
