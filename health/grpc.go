package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// GRPC asks by the gRPC health checking protocol (grpc.health.v1.Health/Check) over HTTP/2: with TLS
// if the target's scheme is https, else in clear text. An endpoint that answers NOT_SERVING is
// unhealthy at once; every answer but SERVING is a failure.
//
// The protocol is one string to ask and one number to answer, so it is written out here, on
// net/http's HTTP/2: the gRPC library would be by far the largest part of evenkeel.
type GRPC struct {
	// Service is what to ask about. Empty means the server as a whole.
	Service string

	// Port is where to ask, if it is not the port of the endpoint. It makes no difference to
	// Unix sockets, and to endpoints whose transports are the user's own.
	Port int
}

// Validate implements [Probe].
func (p GRPC) Validate() error {
	var errs field.Errors
	checkPort(&errs, p.Port)
	errs.Check(utf8.ValidString(p.Service) && len(p.Service) <= maxService, "Service", p.Service,
		fmt.Sprintf("must be UTF-8 of at most %d bytes", maxService))
	return errs.Err()
}

const (
	maxService = 1024
	grpcPath   = "/grpc.health.v1.Health/Check"
	grpcPrefix = 5 // of a message: whether it is compressed, and its length in four bytes
)

func (p GRPC) prober() prober { return p }

func (p GRPC) ask(ctx context.Context, l *line) answer {
	message := p.message()
	req := &http.Request{
		Method:        http.MethodPost,
		URL:           &url.URL{Path: grpcPath},
		Header:        http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}},
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(message)), nil },
		ContentLength: int64(len(message)),
	}
	req.Body, _ = req.GetBody()
	resp, err := l.send(req.WithContext(ctx), l.lines.h2, p.Port)
	if err != nil {
		l.drop()
		return answer{err: err}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		_ = resp.Body.Close()
		l.drop()
		return answer{err: fmt.Errorf("health: the answer (%d) broke: %w", resp.StatusCode, err)}
	}
	call.Drain(resp, 0, l.lines.clock) // the trailers
	return answer{err: judgeGRPC(resp, body)}
}

// message returns HealthCheckRequest{service = 1} with its prefix.
func (p GRPC) message() []byte {
	const service = 1<<3 | 2 // field 1, a string
	m := make([]byte, grpcPrefix, grpcPrefix+len(p.Service)+4)
	if p.Service != "" {
		m = append(m, service)
		m = binary.AppendUvarint(m, uint64(len(p.Service)))
		m = append(m, p.Service...)
	}
	binary.BigEndian.PutUint32(m[1:grpcPrefix], uint32(len(m)-grpcPrefix))
	return m
}

// judgeGRPC says what the answer means. The status of the call is in the trailers, or in the header
// if there is nothing else.
func judgeGRPC(resp *http.Response, body []byte) error {
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return fmt.Errorf("health: the answer was %d and is not gRPC", resp.StatusCode)
	}
	trailer := resp.Trailer
	if resp.Header.Get("Grpc-Status") != "" {
		trailer = resp.Header
	}
	if code := trailer.Get("Grpc-Status"); code != "0" {
		return fmt.Errorf("health: the gRPC status was %.20q: %.200q", code, trailer.Get("Grpc-Message"))
	}
	switch status, err := servingStatus(body); {
	case err != nil:
		return err
	case status == serving:
		return nil
	case status == notServing:
		return fmt.Errorf("%w: NOT_SERVING", ErrDown)
	default:
		return fmt.Errorf("health: the serving status was %d", status)
	}
}

// The values of HealthCheckResponse.ServingStatus that make a difference.
const (
	serving    = 1
	notServing = 2
)

var errMessage = errors.New("health: the gRPC message cannot be read")

// servingStatus reads HealthCheckResponse{status = 1}. Fields of later versions are passed over.
func servingStatus(body []byte) (status uint64, err error) {
	if len(body) < grpcPrefix || body[0] != 0 || int64(binary.BigEndian.Uint32(body[1:grpcPrefix])) != int64(len(body)-grpcPrefix) {
		return 0, errMessage
	}
	for m := body[grpcPrefix:]; len(m) > 0; {
		tag, n := binary.Uvarint(m)
		if n <= 0 {
			return 0, errMessage
		}
		value, size := fieldValue(m[n:], tag&7)
		if size < 0 {
			return 0, errMessage
		}
		if tag == 1<<3 { // field 1, a number: the last one counts
			status = value
		}
		m = m[n+size:]
	}
	return status, nil
}

// fieldValue returns the number that a protobuf field begins with, and the size of the whole value,
// below 0 if it cannot be read.
func fieldValue(m []byte, wireType uint64) (value uint64, size int) {
	switch wireType {
	case 0:
		if value, size = binary.Uvarint(m); size == 0 {
			size = -1
		}
	case 1:
		size = 8
	case 2:
		length, n := binary.Uvarint(m)
		if n <= 0 || length > uint64(len(m)) {
			return 0, -1
		}
		size = n + int(length)
	case 5:
		size = 4
	default:
		size = -1
	}
	if size > len(m) {
		size = -1
	}
	return value, size
}
