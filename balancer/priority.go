package balancer

import "cmp"

// rank is the place of an endpoint among the tiers.
type rank struct {
	standby  bool
	priority int
}

func (r rank) compare(o rank) int {
	return cmp.Or(compareBool(r.standby, o.standby), cmp.Compare(r.priority, o.priority))
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// tierLoad is what is known of a tier, and what follows for it.
type tierLoad struct {
	standby          bool
	available, total float64 // weights; those that are leaving are in neither
	share            float64 // of the traffic, in 0..1
	inPanic          bool
}

// divide gives each tier its share of the traffic, as Envoy does: a tier has the
// health available/total times the overprovisioning factor, at most 1; the tiers
// are filled in order until all traffic is given away. If all of them together
// are not healthy enough, the shares grow in proportion, and a tier below the
// threshold is in panic. If all are in panic, traffic goes by weight.
//
// Standby tiers come last, and get nothing, unless all others are in panic: then
// they are tiers like them, and the only ones where the others have nothing
// available. It returns whether some tier is not in panic.
func divide(tiers []tierLoad, r Rules) (calm bool) {
	regular := tiers
	for len(regular) > 0 && regular[len(regular)-1].standby {
		regular = regular[:len(regular)-1]
	}
	standby := tiers[len(regular):]
	calm = divideRegular(regular, r)
	switch {
	case len(standby) == 0, len(regular) > 0 && (calm && anyAvailable(regular) || !anyAvailable(standby)):
		return calm
	case anyAvailable(regular):
		return divideRegular(tiers, r)
	}
	for i := range regular {
		regular[i].share, regular[i].inPanic = 0, false
	}
	return divideRegular(standby, r)
}

func divideRegular(regular []tierLoad, r Rules) (calm bool) {
	health := func(t tierLoad) float64 {
		if t.total == 0 {
			return 0
		}
		return min(1, r.Priorities.Overprovisioning*t.available/t.total)
	}
	sum, total := 0.0, 0.0
	for _, t := range regular {
		sum += health(t)
		total += t.total
	}
	for i := range regular {
		t := &regular[i]
		t.inPanic = sum < 1 && t.available < r.Panic.Threshold*t.total
		calm = calm || (!t.inPanic && t.total > 0)
	}
	left := 1.0
	for i := range regular {
		t := &regular[i]
		switch {
		case !calm && total > 0:
			t.share = t.total / total
		case sum > 0:
			t.share = min(left, health(*t)/min(sum, 1))
		}
		left -= t.share
	}
	return calm
}

func anyAvailable(tiers []tierLoad) bool {
	for _, t := range tiers {
		if t.available > 0 {
			return true
		}
	}
	return false
}
