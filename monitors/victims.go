package monitors

// victims are the users of the canary who met an error: exactly as long as they
// are few.
type victims struct {
	known map[uint64]struct{}
	more  int   // without a user, or beyond those that are kept
	after int64 // requests of the canary before the last one
}

const keptVictims = 1024

func (v *victims) add(user uint64, after int64) {
	v.after = after
	if user == 0 || len(v.known) >= keptVictims {
		v.more++
		return
	}
	if v.known == nil {
		v.known = map[uint64]struct{}{}
	}
	v.known[user] = struct{}{}
}

func (v *victims) count() int { return len(v.known) + v.more }

func (v *victims) clear() {
	clear(v.known)
	v.more = 0
}
