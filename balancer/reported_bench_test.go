package balancer

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// reportedAlgorithms are those that read load reports.
var reportedAlgorithms = []struct {
	name      string
	algorithm Algorithm
}{
	{"LoadWeighted", LoadWeighted{Metrics: []string{"named_metrics.queue"}, Blackout: -1, UpdateInterval: time.Hour}},
	{"HotCold", HotCold{}},
}

// loadReports are headers of responses with all that the algorithms look at, each
// of them different.
func loadReports() []http.Header {
	headers := make([]http.Header, 64)
	for i := range headers {
		headers[i] = http.Header{
			"Content-Type": {"application/json"},
			orca.Header: {fmt.Sprintf("TEXT cpu_utilization=0.%02d,rps_fractional=%d.5,eps=0.25,"+
				"named_metrics.rif=%d,named_metrics.latency_ms=%d.125", 10+i, 1000+i, i%20, 5+i*7%30)},
		}
	}
	return headers
}

// reportOnce is what an attempt does to a pool: pick, report with the header of a
// response, end.
func reportOnce(p *Pool, header http.Header) {
	pick, err := p.Pick(Info{Now: p.now()})
	if err != nil {
		panic(err)
	}
	pick.Answered(outcome.Answer{Now: p.now(), Took: time.Millisecond, Class: outcome.Success, Header: header})
	pick.Done()
}

// BenchmarkReported measures one pick with its answer and its end, the parsing of
// the report and two looks at the clock included.
func BenchmarkReported(b *testing.B) {
	headers := loadReports()
	for _, a := range reportedAlgorithms {
		for _, n := range []int{10, 1000, 10000} {
			p := testPool(b, Config{Algorithm: a.algorithm}, manyEndpoints(n)...)
			for k := range 2 * n { // so that every endpoint is known
				reportOnce(p, headers[k%len(headers)])
			}
			p.refreshSnapshot()
			b.Run(fmt.Sprintf("%s/endpoints=%d/single", a.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for k := 0; b.Loop(); k++ {
					reportOnce(p, headers[k%len(headers)])
				}
			})
			b.Run(fmt.Sprintf("%s/endpoints=%d/parallel", a.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for k := 0; pb.Next(); k++ {
						reportOnce(p, headers[k%len(headers)])
					}
				})
			})
		}
	}
}

// BenchmarkReport measures what reading the report costs an answer, to compare
// with.
func BenchmarkReport(b *testing.B) {
	headers, parser := loadReports(), orca.Parser{Utilization: []string{"named_metrics.queue"}}
	b.ReportAllocs()
	for k := 0; b.Loop(); k++ {
		if _, err := parser.ParseHeader(headers[k%len(headers)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReportedBuild measures a picker for many endpoints, all of them known.
func BenchmarkReportedBuild(b *testing.B) {
	headers := loadReports()
	for _, a := range reportedAlgorithms {
		b.Run(fmt.Sprintf("%s/endpoints=10000", a.name), func(b *testing.B) {
			builder, err := a.algorithm.NewBuilder(Env{Rand: rand.Uint64, Now: epoch})
			if err != nil {
				b.Fatal(err)
			}
			_, c := picker(b, a.algorithm, rand.Uint64, make([]float64, 10000)...)
			for i := range c {
				c[i].weight, c[i].observer = 1, builder.Observer(c[i].Endpoint(), nil)
				c[i].observer.Answered(0, outcome.Answer{
					Now: epoch, Took: time.Millisecond, Class: outcome.Success, Header: headers[i%len(headers)],
				})
			}
			p := builder.Build(Group{Candidates: c, Now: epoch})
			b.ReportAllocs()
			for b.Loop() {
				p = builder.Build(Group{Candidates: c, Previous: p, Now: epoch})
			}
		})
	}
}
