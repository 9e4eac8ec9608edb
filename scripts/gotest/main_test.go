package main

import (
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"    p_test.go:1: chatter\n"}
{"Action":"pass","Package":"p","Test":"TestGood"}
{"Action":"output","Package":"p","Test":"TestSkip","Output":"=== RUN   TestSkip\n"}
{"Action":"output","Package":"p","Test":"TestSkip","Output":"    p_test.go:2: no nginx\n"}
{"Action":"output","Package":"p","Test":"TestSkip","Output":"--- SKIP: TestSkip (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestSkip"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
{"Action":"output","Package":"q","Test":"TestBad","Output":"    q_test.go:3: wrong\n"}
{"Action":"output","Package":"q","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"q","Test":"TestBad"}
{"Action":"output","Package":"q","Test":"TestHangs","Output":"panic: test timed out\n"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t1.0s\n"}
{"Action":"fail","Package":"q"}
`

const reported = `ok  	p	0.1s
    q_test.go:3: wrong
--- FAIL: TestBad (0.00s)
panic: test timed out
FAIL	q	1.0s
skipped: p TestSkip (p_test.go:2: no nginx)
`

func TestReport(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		var out strings.Builder
		allowed, err := report(&out, strings.NewReader(events), strict)
		if err != nil {
			t.Fatal(err)
		}
		if allowed == strict {
			t.Errorf("strict %v: a skipped test is allowed: %v", strict, allowed)
		}
		if !strings.HasPrefix(out.String(), reported) {
			t.Errorf("got\n%swant\n%s", out.String(), reported)
		}
	}
}
