// Package retry repeats attempts that failed, where that is safe and does not
// make an outage worse.
//
// A [Policy] is data. [NewTransport] puts it around any http.RoundTripper, [Do]
// around any function, and evenkeel.New uses it around everything that sends.
// What all three ask is the same [Plan]: told how an attempt went, it answers
// whether to stop, and why, or how long to wait for the next. It never blocks
// and reads no clock, so that a test or a simulation can drive it as well.
//
// A request is sent again only if that cannot do harm: it is idempotent by its
// method, its caller promised so by an Idempotency-Key header, or it provably
// reached no server. All retries of a target share one quota, which successes
// refill and nothing else, so that retries end when the target does.
package retry
