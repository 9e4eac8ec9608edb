package health

import "math"

// counted is how many requests were answered, and how many of the answers were failures.
type counted struct{ requests, failures uint64 }

func (c counted) rate() float64 { return float64(c.failures) / float64(c.requests) }

// deviates reports whether an endpoint fails more often than the others of its priority: by more
// than the least gap, and with a probability of at most chance if it were as good as they are.
//
// The usual test (Envoy, gRPC A50) compares the success rate with the mean of all endpoints, in
// standard deviations of the endpoints' rates. That is weak: one endpoint of n is at most √(n-1)
// deviations away, however bad it is, and at least that if it differs at all; so from five
// endpoints on it ejects for any difference, and chance makes one; and when more than a fifth are
// bad, it ejects nobody. Here an endpoint is compared with what the others do, itself left out, by
// the number of its own requests: chance is that of so many failures or more at the rate of the
// others (the tail of the binomial distribution), which depends on no other endpoint's spread.
func deviates(c, others counted, gap, chance float64) bool {
	if c.requests < deviationMinRequests || c.failures < deviationMinFailures || others.requests < deviationMinOthers {
		return false
	}
	p := float64(others.failures+1) / float64(others.requests+2) // never 0 or 1: both are too sure
	return c.rate()-p > gap && binomialTail(c, p) <= chance
}

// binomialTail returns how likely as many failures or more are if each request fails with the
// probability p, which must be below the rate observed. It is exact: where failures are rare, the
// normal distribution would call chance significant ten times too often.
func binomialTail(c counted, p float64) float64 {
	n, f := float64(c.requests), float64(c.failures)
	// Beyond the rate observed, each term is smaller than the one before by a factor that falls.
	sum, term := 1.0, 1.0
	for k := f; k < n && term > 1e-9*sum; k++ {
		term *= (n - k) / (k + 1) * p / (1 - p)
		sum += term
	}
	return min(math.Exp(logBinomial(n, f)+f*math.Log(p)+(n-f)*math.Log1p(-p))*sum, 1)
}

// logBinomial returns the logarithm of n over k.
func logBinomial(n, k float64) float64 {
	a, _ := math.Lgamma(n + 1)
	b, _ := math.Lgamma(k + 1)
	c, _ := math.Lgamma(n - k + 1)
	return a - b - c
}
