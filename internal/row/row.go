// Package row counts failures in a row, where a success may turn out to be none: the headers of
// an answer were good, and then its body broke.
package row

import "sync/atomic"

// Row is failures in a row. The zero Row has none. It is safe for concurrent use.
type Row struct {
	failures  atomic.Uint32
	suspended atomic.Uint32 // those before successes whose bodies are under way
}

// Len returns how many failures there are.
func (r *Row) Len() int { return int(r.failures.Load()) }

// Take makes the row as long as another one.
func (r *Row) Take(o *Row) { r.failures.Store(o.failures.Load()) }

// Failed adds a failure, and returns how many there are.
func (r *Row) Failed() int { return int(r.failures.Add(1)) }

// End notes that something succeeded, so that there is no row any more. As long as its body is
// under way, the row may turn out to go on.
func (r *Row) End(underWay bool) {
	if row := r.failures.Load(); row != 0 { // a store costs more than a look
		r.failures.Store(0)
		r.suspended.Store(row)
	}
	if !underWay {
		r.Whole()
	}
}

// Whole notes that a success has remained one.
func (r *Row) Whole() {
	if r.suspended.Load() != 0 {
		r.suspended.Store(0)
	}
}

// Broke notes that a success has not remained one. If none has since the last failures, their row
// goes on. It returns how many there are, and how many of them have come to it by that.
func (r *Row) Broke() (row, added int) {
	more := r.suspended.Swap(0) + 1
	return int(r.failures.Add(more)), int(more)
}
