package orca_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/orca"
)

// A server adds its load to every response, and tells it to those who ask.
func ExampleNewHandler() {
	now := clock.NewFake(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)) // a real server leaves it out
	service := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		now.Advance(20 * time.Millisecond) // the work
		fmt.Fprint(w, "hello")
	})

	measured, err := orca.NewHandler(service, orca.Config{Limit: 50, Clock: now})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", measured)
	mux.Handle("/.well-known/load", measured.LoadHandler()) // outside, so that asking is no load

	for _, path := range []string{"/users/42", "/.well-known/load"} {
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Printf("%s\n  %s\n  %s\n", path, rec.Header()[orca.Header], rec.Body)
	}
	// Output:
	// /users/42
	//   [TEXT application_utilization=0.02,rps_fractional=0,eps=0,named_metrics.rif=1]
	//   hello
	// /.well-known/load
	//   []
	//   TEXT application_utilization=0,rps_fractional=0.1,eps=0,named_metrics.rif=0,named_metrics.latency_ms=20
}

// A server that is about to stop asks its clients to go elsewhere, and serves
// those that still come.
func ExampleHandler_SetDraining() {
	measured, err := orca.NewHandler(http.NotFoundHandler(), orca.Config{})
	if err != nil {
		log.Fatal(err)
	}
	measured.SetDraining(true)

	rec := httptest.NewRecorder()
	measured.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(rec.Header().Get("Connection"))
	fmt.Println(rec.Header().Get(orca.Header))
	// Output:
	// close
	// TEXT rps_fractional=0,eps=0,named_metrics.rif=1,named_metrics.draining=1
}

// A client reads the report of a response, and with it a metric of its own
// choice.
func ExampleParser_ParseHeader() {
	header := http.Header{orca.Header: {"TEXT cpu_utilization=0.4, rps_fractional=120, eps=3, named_metrics.kv_cache=0.9"}}

	parser := orca.Parser{Utilization: []string{"named_metrics.kv_cache"}}
	report, err := parser.ParseHeader(header)
	if err != nil {
		log.Fatal(err) // a client would count it, and go on without a report
	}
	fmt.Println("CPU:", report.CPU)
	fmt.Println("errors per request:", report.EPS/report.RPS)
	fmt.Println("cache:", report.Named)
	fmt.Println("latency known:", report.Has(orca.Latency))
	// Output:
	// CPU: 0.4
	// errors per request: 0.025
	// cache: 0.9
	// latency known: false
}

// All encodings lead to the same report.
func ExampleParser_Parse() {
	for _, value := range []string{
		"TEXT cpu_utilization=0.1,rps_fractional=2",
		`JSON {"cpuUtilization": 0.1, "rpsFractional": 2}`,
		"BIN CZqZmZmZmbk/MQAAAAAAAABA",
		"TEXT cpu_utilization=-1",
	} {
		report, err := orca.Parser{}.Parse(value)
		fmt.Println(report, err)
	}
	// Output:
	// TEXT cpu_utilization=0.1,rps_fractional=2 <nil>
	// TEXT cpu_utilization=0.1,rps_fractional=2 <nil>
	// TEXT cpu_utilization=0.1,rps_fractional=2 <nil>
	// TEXT  orca: "cpu_utilization" must not be negative
}
