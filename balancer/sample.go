package balancer

import "math"

// sampler draws indexes of candidates in proportion to their weights. Where the
// weights are nearly equal, as they are while a few endpoints are in slow start, it
// draws any and rejects in proportion, which needs little preparation. Else it uses
// the alias method of Walker in the form of Vose: one random number and one look-up,
// whatever the weights.
type sampler struct {
	n     uint64
	rand  func() uint64
	keep  []uint32    // of 2³²: how often a draw is kept, nil if always
	alias []aliasCell // who it is if not, nil if another is drawn
}

// aliasCell is a column of the alias table: with probability keep/2³² the draw
// is the column itself, else it is other.
type aliasCell struct {
	keep  uint32
	other uint32
}

// nearlyEqual is the mean weight in relation to the greatest from which draws are
// rejected: then one in five at most.
const nearlyEqual = 0.8

func newSampler(candidates []Candidate, rand func() uint64) sampler {
	s := sampler{n: uint64(len(candidates)), rand: rand}
	total, most, equal := 0.0, 0.0, true
	for i := range candidates {
		w := candidates[i].weight
		total, most, equal = total+w, max(most, w), equal && w == candidates[0].weight
	}
	switch {
	case equal:
	case total >= nearlyEqual*most*float64(len(candidates)):
		s.keep = make([]uint32, len(candidates))
		for i := range candidates {
			s.keep[i] = uint32(min(candidates[i].weight/most*(1<<32), math.MaxUint32))
		}
	default:
		s.alias = newAlias(candidates)
	}
	return s
}

// draw returns the index of a candidate.
func (s *sampler) draw() int {
	for {
		if i, ok := s.at(s.rand()); ok {
			return i
		}
	}
}

// at returns the candidate that a random number stands for. If it stands for none,
// ok is false.
func (s *sampler) at(r uint64) (i int, ok bool) {
	column := (r >> 32) * s.n >> 32
	switch {
	case s.alias != nil:
		if c := s.alias[column]; uint32(r) >= c.keep {
			return int(c.other), true
		}
	case s.keep != nil:
		return int(column), uint32(r) <= s.keep[column]
	}
	return int(column), true
}

// maxChoices bounds how many candidates are compared in one pick.
const maxChoices = 16

// redraws is how often a duplicate is drawn again before the next index is
// taken instead: with very unequal weights nearly every draw is the same.
const redraws = 4

// draw is a series of different candidates.
type draw struct {
	state uint64 // of the generator
	count int
	drawn [maxChoices]int32
}

// nextAny returns a candidate, which may be in the series already if weights differ:
// among few endpoints, all would be in every series otherwise, the light ones too.
func (s *sampler) nextAny(d *draw) {
	if s.keep == nil && s.alias == nil {
		s.next(d)
		return
	}
	i, ok := s.at(s.random(d))
	for !ok {
		d.state = s.rand()
		i, ok = s.at(d.state)
	}
	d.drawn[d.count] = int32(i)
	d.count++
}

// next returns a candidate that is not yet in the series, which must not hold
// all of them.
func (s *sampler) next(d *draw) int {
	i, ok := s.at(s.random(d))
	for try := 0; !ok || d.has(int32(i)); try++ {
		if try < redraws {
			i, ok = s.at(s.random(d))
			continue
		}
		if ok = true; d.has(int32(i)) {
			i = (i + 1) % int(s.n)
		}
	}
	d.drawn[d.count] = int32(i)
	d.count++
	return i
}

// random returns a random number for the series. Only the first comes from the
// source, and another one where that was rejected; those after it follow by Knuth's linear congruential generator, of
// which the upper bits, which are used, are good, and which costs next to nothing.
func (s *sampler) random(d *draw) uint64 {
	if d.count == 0 {
		d.state = s.rand()
	} else {
		d.state = d.state*6364136223846793005 + 1442695040888963407
	}
	return d.state
}

func (d *draw) has(i int32) bool {
	for k := range d.count {
		if d.drawn[k] == i {
			return true
		}
	}
	return false
}

func equalWeights(candidates []Candidate) bool {
	for i := range candidates {
		if candidates[i].weight != candidates[0].weight {
			return false
		}
	}
	return true
}

func totalWeight(candidates []Candidate) float64 {
	total := 0.0
	for i := range candidates {
		total += candidates[i].weight
	}
	return total
}

func newAlias(candidates []Candidate) []aliasCell {
	n := len(candidates)
	cells := make([]aliasCell, n)
	share := make([]float64, n) // 1 is the mean
	// Those below the mean from the front, the others from the back.
	order := make([]int32, n)
	small, large := 0, n
	scale := float64(n) / totalWeight(candidates)
	for i := range candidates {
		share[i] = candidates[i].weight * scale
		if share[i] < 1 {
			order[small] = int32(i)
			small++
		} else {
			large--
			order[large] = int32(i)
		}
	}
	for small > 0 && large < n {
		small--
		s, l := order[small], order[large]
		cells[s] = aliasCell{keep: uint32(share[s] * (1 << 32)), other: uint32(l)}
		if share[l] -= 1 - share[s]; share[l] < 1 {
			large++
			order[small] = l
			small++
		}
	}
	for _, rest := range [2][]int32{order[:small], order[large:]} { // what is left is 1, but for rounding
		for _, i := range rest {
			cells[i] = aliasCell{keep: 1<<32 - 1, other: uint32(i)}
		}
	}
	return cells
}
