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
// the number of requests: if all were equally good, the failures would be a random part of all
// requests, and chance is how likely so many of them, or more, fall on this endpoint (Fisher's exact
// test). It depends on no other endpoint's spread, and takes into account that the rate of the
// others is itself known from some requests only.
func deviates(c, others counted, gap, chance float64) bool {
	if c.requests < deviationMinRequests || c.failures < deviationMinFailures || others.requests < deviationMinOthers {
		return false
	}
	p := float64(others.failures+1) / float64(others.requests+2)
	return c.rate()-p > gap && tail(c, others) <= chance
}

// tail returns how likely it is that as many failures or more fall on an endpoint if chance divides
// those of all: the upper tail of the hypergeometric distribution. Its rate must be above that of
// the others. It is exact: where failures are rare, a normal distribution would call chance
// significant ten times too often.
func tail(c, others counted) float64 {
	n, f := float64(c.requests), float64(c.failures)
	all, bad := n+float64(others.requests), f+float64(others.failures)
	// Above the rate of the others, each term is smaller than the one before, by a factor that falls.
	sum, term := 1.0, 1.0
	for k := f; k < min(n, bad) && term > 1e-9*sum; k++ {
		term *= (bad - k) / (k + 1) * (n - k) / (all - bad - n + k + 1)
		sum += term
	}
	return min(math.Exp(logChoose(bad, f)+logChoose(all-bad, n-f)-logChoose(all, n))*sum, 1)
}

// logChoose returns the logarithm of n over k.
func logChoose(n, k float64) float64 {
	a, _ := math.Lgamma(n + 1)
	b, _ := math.Lgamma(k + 1)
	c, _ := math.Lgamma(n - k + 1)
	return a - b - c
}
