package outcome

import (
	"errors"
	"net/http"
	"time"
)

// Class is what an attempt meant.
type Class uint8

// The classes. Their zero value is not a class: it stands for "not known yet".
const (
	// Unknown is the class of an attempt that has no outcome yet.
	Unknown Class = iota

	// Success is an answer: 1xx, 2xx and 3xx, upgrades included. It is a
	// sample of the endpoint's latency, and it funds the quota of retries.
	Success

	// ClientError is an answer that blames the request: 4xx except 429,
	// and 501 and 505. The endpoint is alive and its latency is a sample,
	// but it is neither a success nor a failure of the endpoint.
	ClientError

	// Overload is an answer of an endpoint that wants to be left alone:
	// 429, and 503 with a Retry-After header.
	Overload

	// Failure is the endpoint's failure: every other 5xx, a connection that
	// broke, an answer that made no sense, an attempt that took too long
	// while the caller was still waiting.
	Failure

	// NeverSent is a request that provably did not reach any server: the
	// dial or the handshake failed, or the server refused the stream
	// unprocessed. Whatever its method, it may be sent elsewhere.
	NeverSent

	// Refused is an attempt that evenkeel itself did not allow: no endpoint,
	// an open breaker, a limit. No endpoint learns anything from it.
	Refused

	// Canceled is an attempt whose caller gave up, or whose body could not be read.
	// It says nothing about the endpoint.
	Canceled

	// Superseded is the leg of a hedged call that lost and was cancelled.
	Superseded
)

var classNames = [...]string{
	"unknown", "success", "client error", "overload", "failure", "never sent", "refused", "canceled", "superseded",
}

// String returns the name of the class in lower case.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "invalid"
}

// Good reports whether the endpoint did what it should: [Success] or
// [ClientError].
func (c Class) Good() bool { return c == Success || c == ClientError }

// Bad reports whether the class speaks against the endpoint: [Failure], or a
// dial that ended [NeverSent].
func (c Class) Bad() bool { return c == Failure || c == NeverSent }

// Avoid reports whether the next request had better go elsewhere: the class is
// [Overload] or speaks against the endpoint.
func (c Class) Avoid() bool { return c == Overload || c.Bad() }

// Again says where the same request may do better.
type Again uint8

// Where a request may be repeated, if it may be repeated at all.
const (
	// No means that a repetition would end the same way everywhere.
	No Again = iota
	// Elsewhere means that another endpoint may do better, this one would not:
	// its certificate is wrong.
	Elsewhere
	// Anywhere means that any endpoint may do better, this one after a pause.
	Anywhere
)

// Outcome is what a [Classifier] says of an attempt.
type Outcome struct {
	// Class is what the attempt meant.
	Class Class

	// Again says whether repeating it could help. Whether it is allowed is
	// another question, which the retry policy answers.
	Again Again

	// Timeout is set when time ran out: in the dial, in the handshake, or
	// while waiting for the answer. Such an attempt cost the caller time and
	// the server perhaps work, so a repetition costs more of the quota, and
	// is never free.
	Timeout bool
}

// Answer is how an attempt went, as far as it is known when its response's
// headers have arrived or it has failed.
type Answer struct {
	// Now is when it was known.
	Now time.Time
	// Took is the time since the attempt was sent. Waiting in a queue of
	// evenkeel's is not in it, and neither is opening a connection: one
	// request in very many pays for that, and it says little about the others.
	Took time.Duration
	// Class is what it meant.
	Class Class
	// Status is that of the response, 0 without one.
	Status int
	// Connected says that there was a connection. An attempt that was never sent
	// though is one that the server, which is there, would not begin.
	Connected bool
	// Header is that of the response, nil without one. It must not be changed
	// or kept.
	Header http.Header
}

// Reason is why a call was refused, or why no further attempt was made. The
// empty reason means that there was nothing to stop: the last attempt's answer
// was good or final.
type Reason string

// The reasons. Later policies add theirs.
const (
	// Attempts: the allowed number of attempts was made.
	Attempts Reason = "attempts"
	// Quota: the target's allowance of retries is used up.
	Quota Reason = "quota"
	// Pushback: the server wants to be left alone for longer than the policy waits.
	Pushback Reason = "pushback"
	// Backoff: the backoff of the policy allows no more waits.
	Backoff Reason = "backoff"
	// Declined: the policy's own rule says no.
	Declined Reason = "declined"
	// Deadline: no time is left for another attempt, or it ran out.
	Deadline Reason = "deadline"
	// NoEndpoints: there is no endpoint to send to.
	NoEndpoints Reason = "no_endpoints"
	// NotReplayable: the body was read and cannot be had again.
	NotReplayable Reason = "not_replayable"
	// NotIdempotent: the request may have reached a server and must not
	// reach one twice.
	NotIdempotent Reason = "not_idempotent"
	// Caller: the caller's context ended, or the request's body could not be read.
	Caller Reason = "caller"
	// Open: a circuit breaker is open.
	Open Reason = "open"
	// Limiter: a limit on what is sent was reached.
	Limiter Reason = "limiter"
	// Permanent: the failure would be the same at every endpoint.
	Permanent Reason = "permanent"
	// Closed: the transport was closed.
	Closed Reason = "closed"
	// WrongTarget: the request is for another host than the target.
	WrongTarget Reason = "wrong_target"
	// Invalid: the request cannot be sent as it is.
	Invalid Reason = "invalid"
)

// ReasonOf returns the reason that an error of evenkeel's gives for not sending
// a request, by its method Reason, or the empty reason.
func ReasonOf(err error) Reason {
	var r interface{ Reason() Reason }
	if errors.As(err, &r) {
		return r.Reason()
	}
	return ""
}
