package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel"
)

// report shows what happens while it happens, and sums it up.
type report struct {
	out      io.Writer
	terminal bool
	begin    time.Time

	mu       sync.Mutex // guards what follows, and the output
	rows     map[string]*row
	failures int
}

// row is what is counted for an endpoint.
type row struct {
	name, address              string
	attempts, failed, repeated int
	took                       []time.Duration
}

// failuresShown is how many failures are worth a line. More say nothing new.
const failuresShown = 3

func newReport(out *os.File) *report {
	info, err := out.Stat()
	return &report{
		out:      out,
		terminal: err == nil && info.Mode()&os.ModeCharDevice != 0,
		begin:    time.Now(),
		rows:     map[string]*row{},
	}
}

// attempt is the hook. A call has one attempt, more if one fails.
func (r *report) attempt(a evenkeel.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := a.Endpoint.Key().ID
	if r.rows[name] == nil {
		r.rows[name] = &row{name: name, address: a.Endpoint.Address}
	}
	row := r.rows[name]
	row.attempts++
	if a.Number > 1 {
		row.repeated++
	}
	if a.Outcome.Class.Bad() {
		row.failed++
	}
	if a.Err == nil {
		row.took = append(row.took, a.Took)
	}
}

// failure takes note of a call that failed.
func (r *report) failure(err error) {
	r.mu.Lock()
	r.failures++
	show := r.failures <= failuresShown
	r.mu.Unlock()
	if show {
		r.note("a call failed: " + err.Error())
	}
}

// note prints an event on a line of its own.
func (r *report) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintf(r.out, "%5.1fs  %s\n", time.Since(r.begin).Seconds(), text)
}

// clear empties the line that the cursor is on.
func (r *report) clear() {
	if r.terminal {
		fmt.Fprint(r.out, "\r\x1b[K")
	}
}

// watch shows a line about the traffic, in place on a terminal and else one each
// second, until the function that it returns is called.
func (r *report) watch(traffic *traffic, t *evenkeel.Transport) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	every := time.Second
	if r.terminal {
		every /= 10
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause(ctx, every) {
			r.show(traffic, t)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func (r *report) show(traffic *traffic, t *evenkeel.Transport) {
	sum := summary(traffic, t)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintf(r.out, "%5.1fs  %s", time.Since(r.begin).Seconds(), sum)
	for _, row := range r.sorted() {
		fmt.Fprintf(r.out, "   %s %d", row.name, row.attempts)
	}
	if !r.terminal {
		fmt.Fprintln(r.out)
	}
}

// finish prints the table. Its columns add up: a call has one attempt, and one
// more for each retry.
func (r *report) finish(traffic *traffic, t *evenkeel.Transport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	const columns = "%-28s %9v %9v %9v %9v %9v\n"
	fmt.Fprintf(r.out, "\n"+columns, "endpoint", "attempts", "failed", "retries", "p50", "p99")
	for _, row := range r.sorted() {
		name := strings.TrimSpace(strings.TrimSuffix(row.name, row.address) + "  " + row.address)
		slices.Sort(row.took)
		fmt.Fprintf(r.out, columns, name, row.attempts, row.failed, row.repeated, row.quantile(0.5), row.quantile(0.99))
	}
	fmt.Fprintf(r.out, "\n%s\n", summary(traffic, t))
}

func (r *report) sorted() []*row {
	return slices.SortedFunc(maps.Values(r.rows), func(a, b *row) int { return strings.Compare(a.name, b.name) })
}

// quantile wants the times sorted.
func (r *row) quantile(q float64) string {
	if len(r.took) == 0 {
		return "-"
	}
	took := r.took[int(q*float64(len(r.took)-1))]
	return fmt.Sprintf("%.1fms", took.Seconds()*1000)
}

// summary is what the callers saw, and what it took.
func summary(traffic *traffic, t *evenkeel.Transport) string {
	return fmt.Sprintf("calls %d · failed %d · retries %d",
		traffic.calls.Load(), traffic.failed.Load(), t.Stats().Retries)
}
