//go:build !race

package balancer

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// A pick by key allocates nothing, wherever it leads: to where the key belongs,
// elsewhere because that was tried, is full or away, or to the fallback.
func TestAlloc_HashPick(t *testing.T) {
	forAll(t, hashing{loadFactor: 1.25, fallback: LeastRequest{}}, func(t *testing.T, a Algorithm) {
		for _, weighted := range []bool{false, true} {
			endpoints := manyEndpoints(200)
			for i := range endpoints {
				if weighted {
					endpoints[i].Weight = float64(1 + i%3)
				}
			}
			c := newHashCluster(t, a, endpoints...)
			for _, e := range endpoints[:50] {
				c.away[e.Address] = true
			}
			p := c.build()
			info := keyed("0123456789abcdef")
			first := p.Pick(info)
			tried := keyed("0123456789abcdef", c.group.Candidates[first].node.Serial())
			all := keyed("0123456789abcdef")
			for _, one := range c.all {
				all.Tried = append(all.Tried, one.node.Serial())
			}
			k := c.builder.(Keyer)
			for name, f := range map[string]func(){
				"home":     func() { p.Pick(info) },
				"tried":    func() { p.Pick(tried) },
				"all":      func() { p.Pick(all) },
				"fallback": func() { p.Pick(Info{}) },
				"key":      func() { k.Key(info.Request) },
			} {
				assert.Zero(t, testing.AllocsPerRun(100, f), "%s, weighted=%v", name, weighted)
			}
			hold(c.group.Candidates[first], 100)
			assert.Zero(t, testing.AllocsPerRun(100, func() { p.Pick(info) }), "overflow, weighted=%v", weighted)
		}
	})
}
