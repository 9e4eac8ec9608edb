package evenkeeltest

import (
	"net/http"
	"sync/atomic"
)

// Script answers one request after the other by the steps given, and goes on
// with the last one. A step is any [http.Handler]: an [Answer], one of the
// failures of this package such as [Hang], or the test's own. Without steps it
// answers 200. Requests take their steps in the order in which they come.
func Script(steps ...http.Handler) http.Handler {
	s := &script{}
	for _, step := range steps {
		if r, ok := step.(repeated); ok {
			s.steps = append(s.steps, r.steps...)
			continue
		}
		s.steps = append(s.steps, step)
	}
	if len(s.steps) == 0 {
		s.steps = append(s.steps, Status(http.StatusOK))
	}
	return s
}

// Repeat stands for n equal steps in a [Script].
func Repeat(n int, step http.Handler) http.Handler {
	r := repeated{Handler: step}
	for range n {
		r.steps = append(r.steps, step)
	}
	return r
}

type script struct {
	steps []http.Handler
	taken atomic.Int64
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i := int(s.taken.Add(1)) - 1
	s.steps[min(i, len(s.steps)-1)].ServeHTTP(w, r)
}

// repeated is also a handler by itself, where a script does not take it apart.
type repeated struct {
	http.Handler
	steps []http.Handler
}
