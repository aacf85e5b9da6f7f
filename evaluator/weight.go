package evaluator

import "slices"

// weight is the upper end of a variant's part of the bucket space.
type weight struct {
	variant int
	upTo    int64
}

// weigh lays the variants' weights side by side in the bucket space.
func (c *compiler) weigh(f *compiled) {
	if len(f.def.Variants) == 0 {
		on := []weight{{slices.Index(f.variantNames, On), wholeShare}}
		f.weights, f.enabledWeights = on, on
		return
	}
	all := make([]Weight, len(f.def.Variants))
	for i, v := range f.def.Variants {
		all[i] = Weight{v.Name, v.Share}
	}
	f.weights = f.layOut(all, false)
	if f.enabledWeights = f.layOut(all, true); len(f.enabledWeights) == 0 {
		f.enabledWeights = f.weights
	}
}

// layOut turns shares into upper ends; with enabledOnly `off` is left out and
// the others are stretched to fill the space.
func (f *compiled) layOut(all []Weight, enabledOnly bool) (out []weight) {
	var sum int64
	for _, w := range all {
		if !enabledOnly || w.Variant != Off {
			sum += int64(w.Share)
		}
	}
	var upTo int64
	for _, w := range all {
		if w.Share > 0 && (!enabledOnly || w.Variant != Off) {
			upTo += int64(w.Share)
			out = append(out, weight{slices.Index(f.variantNames, w.Variant), upTo * wholeShare / sum})
		}
	}
	return out
}
