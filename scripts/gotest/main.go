// Command gotest runs go test with the arguments that it gets, and prints what
// matters of it: the closing line of every package, all that a failed test
// printed, and which tests were skipped and why.
//
// With -strict, as the first argument, a skipped test is a failure.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	args := os.Args[1:]
	strict := len(args) > 0 && args[0] == "-strict"
	if strict {
		args = args[1:]
	}
	ok, err := run(strict, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run reports whether the tests passed.
func run(strict bool, args []string) (bool, error) {
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	allowed, err := report(os.Stdout, out, strict)
	_, _ = io.Copy(os.Stdout, out) // after an error, so that go test does not block
	exit := cmd.Wait()
	var failed *exec.ExitError
	if err == nil && !errors.As(exit, &failed) {
		err = exit
	}
	return allowed && exit == nil, err
}

// event is a line of go test -json, see go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// report writes what matters of the events. It reports whether what was
// skipped is allowed; failures are known from the exit status of go test.
func report(w io.Writer, events io.Reader, strict bool) (bool, error) {
	var (
		printed = map[string][]string{} // by package and test
		order   = map[string][]string{} // keys of printed, by package
		skipped []string
	)
	flush := func(key string) {
		for _, line := range printed[key] {
			if !strings.HasPrefix(line, "=== ") {
				fmt.Fprint(w, line)
			}
		}
		delete(printed, key)
	}
	dec := json.NewDecoder(events)
	for {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return false, err
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			fmt.Fprint(w, e.Output)
		case "output":
			if e.Test == "" && strings.HasPrefix(e.Output, "ok ") {
				fmt.Fprint(w, e.Output)
				continue
			}
			if printed[key] == nil {
				order[e.Package] = append(order[e.Package], key)
			}
			printed[key] = append(printed[key], e.Output)
		case "fail":
			if e.Test == "" { // what is left is of tests that did not come to an end
				for _, k := range order[e.Package] {
					flush(k)
				}
			}
			flush(key)
		case "skip":
			if e.Test != "" {
				skipped = append(skipped, key+reason(printed[key]))
			}
			delete(printed, key)
		case "pass":
			delete(printed, key)
		}
	}
	for _, s := range skipped {
		fmt.Fprintln(w, "skipped:", s)
	}
	if strict && len(skipped) > 0 {
		fmt.Fprintln(w, "FAIL: nothing may be skipped here")
		return false, nil
	}
	return true, nil
}

// reason returns what a skipped test said, in parentheses.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, " ") + ")"
}
