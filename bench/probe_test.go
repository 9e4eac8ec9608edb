//go:build unix

package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
)

// serveProbes makes the process a server, for the benchmark below: what the servers cost is not to be
// counted.
const serveProbes = "EVENKEEL_BENCH_SERVE_PROBES"

func TestMain(m *testing.M) {
	if os.Getenv(serveProbes) == "" {
		os.Exit(m.Run())
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
}

// What it costs a client to probe 10,000 endpoints every 10 s, in percent of one core: a second's
// worth of processor time for each second. Beside it is the same number of requests, one after the
// other, over net/http's transport alone.
func BenchmarkProbes(b *testing.B) {
	const endpoints, interval, measured = 10_000, 10 * time.Second, 10 * time.Second
	address := probeServer(b)

	b.Run("evenkeel", func(b *testing.B) {
		m, err := health.NewMonitor(health.Config{
			Check:   &health.Check{Interval: interval, IdleInterval: health.Off},
			Outlier: health.Outlier{Disabled: true},
		})
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close()
		for i := range endpoints {
			if _, err := m.Add(discovery.Endpoint{ID: fmt.Sprint(i), Address: address}); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(interval + interval/5) // all have their connection
		begin, before := time.Now(), processorTime(b)
		time.Sleep(measured)
		used, passed := processorTime(b)-before, time.Since(begin)
		for _, s := range m.Status() {
			if s.State != health.Healthy || time.Since(s.Probed) > interval+interval/5 {
				b.Fatalf("%v is %v, probed %v ago: %v", s.Endpoint, s.State, time.Since(s.Probed), s.Err)
			}
		}
		b.ReportMetric(100*used.Seconds()/passed.Seconds(), "%core")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("loop", func(b *testing.B) {
		t := &http.Transport{MaxIdleConnsPerHost: 100}
		defer t.CloseIdleConnections()
		const requests = endpoints * int(measured/interval)
		before := processorTime(b)
		for range requests {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+address+"/health", http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			resp, err := t.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			_ = resp.Body.Close()
		}
		b.ReportMetric(100*(processorTime(b)-before).Seconds()/measured.Seconds(), "%core")
		b.ReportMetric(0, "ns/op")
	})
}

// probeServer starts a server that answers 200 in a process of its own.
func probeServer(b *testing.B) (address string) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), serveProbes+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cancel(); _ = cmd.Wait() })
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(line[:n]))
}

// processorTime returns what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
