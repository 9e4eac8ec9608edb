package discovery

import "testing"

// FuzzParseFile checks what holds of every file: no panic, only valid endpoints,
// and never an empty set beside bad entries.
func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", `{"endpoints":[]}`, `{"endpoints":null}`, `{"endpoints":[null]}`,
		`{"endpoints":[{"address":"10.0.0.1:80","id":"a","weight":0.5,"priority":1,"zone":"z","draining":true,"attributes":{"a":"b"}}]}`,
		`{"endpoints":[{"address":"[::1]:80","weight":0},{"address":"unix:/a","weight":-1}]}`,
		`{"endpoints":[{"address":"a:1"}]} {`, `{"endpoints":[{"address":"a:1"}`, `{"endpoints":[{"weight":1e999}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		endpoints, skipped, err := parseFile(content)
		if err != nil && (endpoints != nil || skipped != nil) {
			t.Fatal("endpoints beside a failure")
		}
		if len(endpoints) == 0 && skipped != nil {
			t.Fatal("an empty answer beside bad entries")
		}
		for _, e := range endpoints {
			if problem := e.Validate(); problem != nil {
				t.Fatal(problem)
			}
		}
	})
}

// FuzzHostProblem checks that a name which passes makes an address that passes.
func FuzzHostProblem(f *testing.F) {
	for _, seed := range []string{"", ".", "a", "a.", "a..b", "-a", "a-", "10.0.0.1", "a_b.c", "ä", "a:80", "http://a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if hostProblem(name) != "" {
			return
		}
		address := Endpoint{Address: name + ":80"}
		if problem := address.Validate(); problem != nil {
			t.Fatal(problem)
		}
	})
}
