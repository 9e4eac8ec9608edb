// Package breaker stops calls to what is broken, and finds out when it works again.
//
// A [Breaker] is closed as long as calls succeed. It opens when too many fail, or take
// too long, and then refuses calls with [ErrOpen], at the cost of a look at the
// clock. When its time is up it is half-open: it lets a few calls through as probes.
// If they succeed it closes; if one fails it opens again, for longer.
//
// Which calls speak against what was called is decided by package outcome, the same
// way as for everything else in evenkeel: a caller that gives up says nothing about
// the server, and neither does a 404. So a server that hangs is only found out where the
// attempt has a time limit shorter than the caller's, such as that of retry.Policy.
//
// There are three ways to use it. [NewTransport] puts a breaker for each host around
// an http.RoundTripper. [Do] and [Breaker.Do] guard any function. [Breaker.Allow] and
// [Permit.Done] are the two halves of that, for what is no function, such as a
// stream. A [Group] holds breakers by key, as many as allowed and no more. evenkeel.New
// has one for each endpoint, which keeps an endpoint out of the balancer's choice
// while its breaker is open, so that it costs no attempt.
//
// # How it works
//
// From one change of state to the next a breaker is in one phase. A phase holds what
// was counted since it began, and until when it lasts. A [Permit] belongs to the phase
// that gave it; when it is given back to a phase that is over, its result is ignored.
// So a call that began before the breaker opened cannot close it, and a probe that
// hangs cannot keep it half-open: it counts as failed after a while.
//
// A success in a closed breaker is an atomic addition; failures and probes take a
// lock. Nothing is done in the background: an open breaker compares instants when it is
// asked, except under a balancer, which must be told, and so has a timer.
//
// Under a balancer a call may also be forced through an open breaker: when so few
// endpoints are available that their health is ignored. As many of those in a row as it
// takes probes close the breaker before its time.
//
// [Throttle] is another way to hold back: it lets through about as many calls as the
// server accepts, and refuses the others at random.
package breaker
