package breaker

import "time"

// suffered counts a call of a closed breaker that failed or was slow, at an instant that
// need not have been read if the window does not need it.
func (b *Breaker) suffered(p *phase, at time.Duration, failed, slow, underWay bool, retryAfter time.Duration) (counted bool) {
	b.mu.Lock()
	if b.phase.Load() != p {
		b.mu.Unlock()
		return false
	}
	if failed {
		p.row.Failed()
	} else {
		p.row.End(underWay)
	}
	if p.window != nil {
		p.window.add(at, failed, slow)
	}
	b.judgeAndUnlock(p, at, retryAfter)
	return true
}

// judgeAndUnlock opens the breaker if what was counted is enough for that.
func (b *Breaker) judgeAndUnlock(p *phase, at, retryAfter time.Duration) {
	set := b.settings.Load()
	counts := p.counts(at)
	because := set.trip(counts, p.share(at))
	if because == "" && set.TripIf != nil {
		b.mu.Unlock()
		trip := set.TripIf(counts)
		b.mu.Lock()
		if trip && b.phase.Load() == p {
			because = Predicate
		}
	}
	if because != "" {
		b.openLocked(set, because, set.read(at), retryAfter)
	}
	b.unlock()
}

// leastInRamp is how many calls a rate is made of at least, also while there are few.
const leastInRamp = 5

// trip returns why a breaker with these counts is to open, or nothing. While only a
// share of the calls is let through, as small a share of the minimum is enough.
func (s *settings) trip(c Counts, share float64) Reason {
	enough := float64(c.Calls()) >= max(min(leastInRamp, float64(s.MinCalls)), float64(s.MinCalls)*share)
	switch {
	case s.ConsecutiveFailures != Off && c.ConsecutiveFailures >= s.ConsecutiveFailures:
		return ConsecutiveFailures
	case s.FailureRate != Off && enough && c.FailureRate() >= s.FailureRate:
		return FailureRate
	case s.SlowAfter > 0 && enough && c.SlowRate() >= s.SlowRate:
		return SlowRate
	}
	return ""
}

// probed takes the result of a probe, or of a call that was forced through.
func (b *Breaker) probed(p *phase, number int32, at time.Duration, v verdict, retryAfter time.Duration) (counted bool) {
	b.mu.Lock()
	defer b.unlock()
	set := b.settings.Load()
	if b.advanceLocked(set, at) != p || (number != forced && !p.probes.end(number)) || v == ignored {
		return false
	}
	switch {
	case v != bad:
		p.probes.good++
	case p.state == Open: // forced through: only successes in a row count
		p.probes.bad++
		p.probes.good = 0
	default:
		p.probes.bad++
	}
	b.judgeProbesLocked(set, p, at, retryAfter)
	return true
}

// judgeProbesLocked opens or closes the breaker if enough probes have failed or succeeded.
func (b *Breaker) judgeProbesLocked(set *settings, p *phase, at, retryAfter time.Duration) {
	switch {
	case p.state == HalfOpen && p.probes.bad >= set.ProbeFailures:
		b.openLocked(set, ProbeFailed, at, retryAfter)
	case p.probes.good >= set.ProbeSuccesses:
		b.closeLocked(set, at)
	}
}

// brokeLate counts a call of the phase as failed, in place of what it had counted: its
// answer was good, and then its body broke. A probe that helped to close the breaker is a
// failure of what came then.
func (b *Breaker) brokeLate(p *phase, at time.Duration, v verdict, slow bool) {
	b.mu.Lock()
	set := b.settings.Load()
	now := b.advanceLocked(set, at)
	switch {
	case now.closedBy == p:
		now.row.Failed()
		if now.window != nil {
			now.window.add(at, true, slow)
		}
		b.judgeAndUnlock(now, at, 0)
	case now != p || p.mute:
		b.unlock()
	case p.state == Closed:
		p.row.Broke()
		switch {
		case p.window == nil:
		case v == good:
			p.window.broke(at, slow)
		default: // it had counted nothing
			p.window.add(at, true, slow)
		}
		b.judgeAndUnlock(p, at, 0)
	default:
		p.probes.good = max(p.probes.good-1, 0)
		p.probes.bad++
		b.judgeProbesLocked(set, p, at, 0)
		b.unlock()
	}
}
