package orca

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// nullWriter is a server without a network.
type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *nullWriter) WriteHeader(int)             {}

// BenchmarkParse measures reading one report, as a client does per response.
func BenchmarkParse(b *testing.B) {
	for _, row := range []struct{ name, value string }{
		{"text", exampleText},
		{"json", `JSON {"cpu_utilization":0.7,"application_utilization":0.8,"rps_fractional":1000,"eps":2,"named_metrics":{"rif":12,"latency_ms":8.3}}`},
		{"binary", bin(exampleBinary)},
	} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (Parser{}).Parse(row.value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppend measures writing one report.
func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = exampleReport.Append(buf[:0])
	}
}

func benchHandlers(b *testing.B) map[string]http.Handler {
	b.Helper()
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	measured, err := NewHandler(bare, Config{Limit: 1000})
	if err != nil {
		b.Fatal(err)
	}
	return map[string]http.Handler{"bare": bare, "measured": measured}
}

// BenchmarkHandler measures what a request costs in the handler, beside the bare
// one: the difference is the price.
func BenchmarkHandler(b *testing.B) {
	handlers := benchHandlers(b)
	for _, name := range []string{"bare", "measured"} {
		h, req := handlers[name], httptest.NewRequest(http.MethodGet, "/", nil)
		b.Run(name+"/single", func(b *testing.B) {
			w := &nullWriter{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, req)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w := &nullWriter{header: http.Header{}}
				for pb.Next() {
					h.ServeHTTP(w, req)
				}
			})
		})
	}
}

// BenchmarkServer measures a request to a real server on this machine, beside
// the bare handler: the ratio is the overhead.
func BenchmarkServer(b *testing.B) {
	handlers := benchHandlers(b)
	for _, name := range []string{"bare", "measured"} {
		b.Run(name, func(b *testing.B) {
			srv := httptest.NewServer(handlers[name])
			defer srv.Close()
			client := srv.Client()
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, srv.URL, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				resp, err := client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
