package retry

import "github.com/evenkeel-go/evenkeel/outcome"

// Budget bounds the attempts that the calls of a target make beyond their first ones, retries
// and hedges together. Without one, retries turn the failure of a part into that of the whole.
// [Quota], [Throttle] and [Ratio] are budgets.
type Budget interface {
	// NewAccount returns an account under this budget, or all that is wrong with the budget.
	// previous is that of the policy before, nil if there was none: what it knows is to be
	// taken over as far as it is of use.
	NewAccount(previous Account) (Account, error)
}

// Account holds what is left of a budget. It must be safe for concurrent use and must not
// block.
type Account interface {
	// Begin is told of each call when it begins, and End when it has its answer.
	Begin()
	// End is described at Begin.
	End()
	// Withdraw asks for one more attempt: after one that ended with o, or, if o.Class is
	// [outcome.Unknown], beside one. What it took, at least 0 and at most math.MaxInt32, is told again
	// by Report.
	Withdraw(o outcome.Outcome) (cost int, ok bool)
	// Report is told how each attempt ended, and what it had taken: 0 for the first of a
	// call. [outcome.Refused] is one that was not made after all, [outcome.Superseded] one that
	// lost against another.
	Report(cost int, o outcome.Outcome)
	// Tokens returns how much is left, for people.
	Tokens() int
}
