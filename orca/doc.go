// Package orca lets servers tell their clients how loaded they are, so that a
// client can send less to the one that is busy before it is slow.
//
// A server knows what no client sees: its processor, its queue, the requests of
// all its clients together. ORCA, Open Request Cost Aggregation, is the report
// of it that gRPC (gRFC A51) and Envoy read: one response header with a handful
// of numbers,
//
//	Endpoint-Load-Metrics: TEXT cpu_utilization=0.4,rps_fractional=1200,eps=2,named_metrics.rif=17
//
// or the same as JSON or protobuf. Nothing but that header passes between
// server and client; there is no connection to keep and no state to agree on.
//
// On a server, start with [NewHandler]: it wraps the service's handler, measures
// it, and adds the report to every response. [Handler.LoadHandler] answers
// clients that ask before they send. On a client, start with [Parser]: it reads
// a report of any encoding, and the text form without allocating.
//
// A report describes one server. A proxy must remove the header from what it
// passes outward, or its own clients weigh all of its backends by the one that
// happened to answer. This package does not do that for a proxy, it does not
// measure the processor, which is different on every platform (see
// Config.CPU), and it decides nothing: what to do with a report is up to a
// balancing algorithm. The out-of-band stream of gRFC A51 is not here either.
package orca
