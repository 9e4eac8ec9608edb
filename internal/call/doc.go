// Package call is what the layers of one call share, and the one place where
// the obligations of an http.RoundTripper are met.
//
// The outermost layer makes a [Record] for the call, the layer that repeats
// makes an [Attempt] for each sending, and both travel down in the request's
// context, because that is the only thing which survives from one RoundTripper
// to the next. A layer below joins the attempt that it finds ([Join]) and adds
// its part: the balancer the endpoint, later a limiter its token. The layer
// that hands the request to a transport ends with [Attempt.Send], which
//
//   - throws away the answer of the attempt before, now that the next is certain,
//   - starts the clock and the time limit of the attempt,
//   - watches whether a connection was had at all,
//   - asks the classifier, once, what the answer meant, and tells it to all,
//   - wraps the response's body, once, so that its end is seen.
//
// A layer that is used alone finds nothing to join and makes a record of its
// own, so there is no second implementation of any of this.
//
// Who owns the caller's request body is said in body.go, and who owns what of attempts that run
// beside each other in race.go. A call of which nothing needs to be watched begins as a [Light] one
// and becomes a record if its first attempt is not good. A [Limit] counts the attempts of calls
// that are made inside each other.
package call
