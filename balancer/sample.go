package balancer

// sampler draws indexes of candidates in proportion to their weights, by the
// alias method of Walker in the form of Vose: one random number and one
// look-up, whatever the weights.
type sampler struct {
	n     uint64
	rand  func() uint64
	alias []aliasCell // nil if all weights are equal
}

// aliasCell is a column of the alias table: with probability keep/2³² the draw
// is the column itself, else it is other.
type aliasCell struct {
	keep  uint32
	other uint32
}

func newSampler(candidates []Candidate, rand func() uint64) sampler {
	s := sampler{n: uint64(len(candidates)), rand: rand}
	if !equalWeights(candidates) {
		s.alias = newAlias(candidates)
	}
	return s
}

// draw returns the index of a candidate.
func (s *sampler) draw() int { return s.at(s.rand()) }

// at returns the candidate that a random number stands for.
func (s *sampler) at(r uint64) int {
	i := (r >> 32) * s.n >> 32
	if s.alias != nil {
		if c := s.alias[i]; uint32(r) >= c.keep {
			return int(c.other)
		}
	}
	return int(i)
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

// next returns a candidate that is not yet in the series, which must not hold
// all of them.
func (s *sampler) next(d *draw) int {
	i := s.at(s.random(d))
	for try := 0; d.has(int32(i)); try++ {
		if try < redraws {
			i = s.at(s.random(d))
		} else if i++; i == int(s.n) {
			i = 0
		}
	}
	d.drawn[d.count] = int32(i)
	d.count++
	return i
}

// random returns a random number for the series. Only the first comes from the
// source; those after it follow by Knuth's linear congruential generator, of
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
