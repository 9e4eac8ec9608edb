// Package retry repeats attempts that failed, where that is safe and does not make an outage
// worse, and starts another one beside an attempt that takes long, where that is wanted.
//
// A [Policy] is data. [NewTransport] puts it around any http.RoundTripper, [Do] around any
// function, and evenkeel.New uses it around everything that sends. What all three ask is the same
// [Plan]: told how an attempt went, it answers whether to stop, and why, or how long to wait for
// the next. It never blocks and reads no clock, so that a test or a simulation can drive it as
// well.
//
// A request is sent again only if that cannot do harm: it is idempotent by its method, its
// caller promised so by an Idempotency-Key header or a [Mark], or it provably reached no server.
// Whether it did is told by types of errors and by what net/http reports of its connections, never
// by a text. A body is had again by GetBody; one without is kept for another endpoint as long as
// nobody has read it, and beyond that only with Policy.Spool.
//
// All retries and hedges of a target share one [Budget]. The default, a [Quota], is refilled by
// successes and nothing else, so that retries end when the target does.
//
// # How a call is driven
//
// Without hedges, attempts run one after the other on the caller's goroutine (repeat, in
// transport.go). With hedges, each attempt runs on a goroutine of its own, and the caller's waits
// for what happens next (drive, in contest.go): an attempt has ended, one has been alone for long
// enough, or the caller has gone. It alone asks the plan, tells hooks, and touches what the call
// knows; what an attempt brings belongs to the attempt's goroutine until that hands it over. So
// there is an owner for everything at every time:
//
//   - an attempt that nobody waits for any more throws its own answer away, when it comes;
//   - one that lost is cancelled, and says neither good nor bad of its endpoint, but to the
//     balancer that the endpoint takes at least that long; one that had answered before it could
//     be cancelled counts as what it was;
//   - a failed attempt never decides while another one runs: its answer is kept until that has
//     ended, and is the caller's if there is no better one;
//   - the answer that wins keeps the context of its attempt until its body has ended.
//
// # What a call costs
//
// A call that needs nothing but an answer (no body, no time limit, no hook, no hedge) makes one
// allocation for its first attempt, and becomes an ordinary one only if that fails.
package retry
