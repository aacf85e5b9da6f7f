package evaluator

// set finds texts: by a walk while they are few, else by a map.
type set struct {
	few  []string
	many map[string]struct{}
}

func newSet(values []string) set {
	if len(values) <= 8 {
		return set{few: values}
	}
	return set{many: toMap(values)}
}

func toMap(values []string) map[string]struct{} {
	m := make(map[string]struct{}, len(values))
	for _, v := range values {
		m[v] = struct{}{}
	}
	return m
}

func (s *set) has(v string) bool {
	if s.many != nil {
		_, ok := s.many[v]
		return ok
	}
	for _, f := range s.few {
		if f == v {
			return true
		}
	}
	return false
}

func (s *set) isEmpty() bool { return len(s.few) == 0 && len(s.many) == 0 }
