package call

import (
	"context"
	"sync/atomic"
)

// Limit bounds the attempts of a call together with those of the calls that are made inside
// it, so that retries around retries do not multiply: one that finds itself inside another
// takes over the outermost bound.
type Limit struct {
	outer *Limit       // that of the call around this one, nil if there is none with a bound
	most  int32        // 0 is no bound
	spent atomic.Int32 // attempts that count, with those of calls made inside
}

// inside makes the call one inside another. Its first attempt is the one that is under way
// there.
func (l *Limit) inside(outer *Limit) {
	if outer.most > 0 {
		l.outer, l.most = outer, outer.most
	}
}

// set sets the bound, unless a call around this one has one.
func (l *Limit) set(n int) {
	if l.most == 0 {
		l.most = int32(n)
	}
}

// Allows reports whether there may be one more attempt.
func (l *Limit) Allows() bool {
	outermost := l
	for outermost.outer != nil {
		outermost = outermost.outer
	}
	return l.most == 0 || outermost.spent.Load() < l.most
}

// Spend counts an attempt: here, and unless it is the first, in the calls around this one.
func (l *Limit) Spend() {
	if l.spent.Add(1) == 1 {
		return
	}
	for o := l.outer; o != nil; o = o.outer {
		o.spent.Add(1)
	}
}

// Unspend takes back what Spend counted: the attempt was never sent.
func (l *Limit) Unspend() {
	if l.spent.Add(-1) == 0 {
		return
	}
	for o := l.outer; o != nil; o = o.outer {
		o.spent.Add(-1)
	}
}

// Scope is the context of a call that is not an HTTP request, in which such may be made.
type Scope struct {
	context.Context
	Limit
}

// NewScope returns the context of a call of at most so many attempts.
func NewScope(ctx context.Context, attempts int) *Scope {
	s := &Scope{Context: ctx}
	if outer := limitOf(ctx); outer != nil {
		s.inside(outer)
	}
	s.set(attempts)
	return s
}

// Value implements [context.Context].
func (s *Scope) Value(key any) any {
	switch key {
	case limitKey{}:
		return s
	case recordKey{}, attemptKey{}, lightKey{}:
		return nil // what is around it is not joined
	}
	return s.Context.Value(key)
}
