package health

import (
	"encoding/binary"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// framed puts the prefix of gRPC before a message.
func framed(message string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(b, message...)
}

// The bytes are those of protobuf, to the letter.
func TestGRPC_Message(t *testing.T) {
	for service, want := range map[string]string{
		"":                            "\x00\x00\x00\x00\x00",
		"users":                       "\x00\x00\x00\x00\x07\x0a\x05users",
		"users.v1.Users":              "\x00\x00\x00\x00\x10\x0a\x0eusers.v1.Users",
		"ä":                           "\x00\x00\x00\x00\x04\x0a\x02ä",
		strings.Repeat("s", 200):      "\x00\x00\x00\x00\xcb\x0a\xc8\x01" + strings.Repeat("s", 200),
		strings.Repeat("s", 127):      "\x00\x00\x00\x00\x81\x0a\x7f" + strings.Repeat("s", 127),
		strings.Repeat("s", 128):      "\x00\x00\x00\x00\x83\x0a\x80\x01" + strings.Repeat("s", 128),
		strings.Repeat("s", 1<<10):    "\x00\x00\x00\x04\x03\x0a\x80\x08" + strings.Repeat("s", 1<<10),
		"with\x00zero and \"quotes\"": "\x00\x00\x00\x00\x18\x0a\x16with\x00zero and \"quotes\"",
	} {
		assert.Equal(t, want, string(GRPC{Service: service}.message()), "%.20q", service)
	}
}

func TestServingStatus(t *testing.T) {
	const unreadable = ^uint64(0)
	for _, row := range []struct {
		what string
		body string
		want uint64
	}{
		{"SERVING", "\x00\x00\x00\x00\x02\x08\x01", 1},
		{"NOT_SERVING", "\x00\x00\x00\x00\x02\x08\x02", 2},
		{"SERVICE_UNKNOWN", "\x00\x00\x00\x00\x02\x08\x03", 3},
		{"UNKNOWN, said", "\x00\x00\x00\x00\x02\x08\x00", 0},
		{"UNKNOWN, not said", "\x00\x00\x00\x00\x00", 0},
		{"one of later", "\x00\x00\x00\x00\x03\x08\xac\x02", 300},
		{"the last one counts", "\x00\x00\x00\x00\x04\x08\x02\x08\x01", 1},
		{"a number that is written long", "\x00\x00\x00\x00\x04\x08\x81\x80\x00", 1},
		{"negative", "\x00\x00\x00\x00\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", unreadable - 0},
		{"unknown fields before it", string(framed("\x10\x05\x19abcdefgh\x22\x03xyz\x2dabcd\x08\x01")), 1},
		{"unknown fields after it", string(framed("\x08\x01\x10\x05\x19abcdefgh\x22\x03xyz\x2dabcd")), 1},
		{"an unknown field with a large number", string(framed("\xfa\xff\xff\xff\x0f\x01x\x08\x01")), 1},
		{"field 1 as another type", string(framed("\x0a\x01\x01\x08\x01")), 1},
		{"field 1 only as another type", string(framed("\x0a\x01\x01")), 0},

		{"nothing", "", unreadable},
		{"less than a prefix", "\x00\x00\x00\x00", unreadable},
		{"compressed", "\x01\x00\x00\x00\x02\x08\x01", unreadable},
		{"a flag of later", "\x80\x00\x00\x00\x02\x08\x01", unreadable},
		{"truncated", "\x00\x00\x00\x00\x02\x08", unreadable},
		{"longer than it says", "\x00\x00\x00\x00\x02\x08\x01\x00", unreadable},
		{"two messages", "\x00\x00\x00\x00\x02\x08\x01\x00\x00\x00\x00\x02\x08\x01", unreadable},
		{"the longest length", "\x00\xff\xff\xff\xff\x08\x01", unreadable},
		{"a tag without a value", string(framed("\x08")), unreadable},
		{"a tag that is cut off", string(framed("\x88")), unreadable},
		{"a number that is cut off", string(framed("\x08\x81")), unreadable},
		{"a number that is too long", string(framed("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")), unreadable},
		{"a string that is cut off", string(framed("\x12\x05abc")), unreadable},
		{"a string of all lengths", string(framed("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc")), unreadable},
		{"a string whose length overflows with its place", string(framed("\x12\xf8\xff\xff\xff\xff\xff\xff\xff\x7fabc")), unreadable},
		{"eight bytes that are cut off", string(framed("\x11abc")), unreadable},
		{"four bytes that are cut off", string(framed("\x15abc")), unreadable},
		{"a type that there is not", string(framed("\x0f\x01")), unreadable},
		{"the tag that is too long", string(framed("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01")), unreadable},
	} {
		t.Run(row.what, func(t *testing.T) {
			status, err := servingStatus([]byte(row.body))
			switch {
			case row.what == "negative":
				assert.NoError(t, err)
				assert.Equal(t, ^uint64(0), status)
			case row.want == unreadable:
				assert.ErrorIs(t, err, errMessage)
			default:
				require.NoError(t, err)
				assert.Equal(t, row.want, status)
			}
		})
	}
}

// An endpoint is down if it says so, and in no other case good unless it says SERVING.
func TestJudgeGRPC(t *testing.T) {
	const serves = "\x08\x01"
	typed := http.Header{"Content-Type": {"application/grpc"}}
	fine := http.Header{"Grpc-Status": {"0"}}
	for _, row := range []struct {
		what    string
		status  int
		header  http.Header
		trailer http.Header
		body    string
		want    finding
		says    string
	}{
		{"SERVING", 200, typed, fine, serves, good, ""},
		{"with the name of an encoding", 200, http.Header{"Content-Type": {"application/grpc+proto"}}, fine, serves, good, ""},
		{"NOT_SERVING", 200, typed, fine, "\x08\x02", down, "NOT_SERVING"},
		{"UNKNOWN", 200, typed, fine, "", bad, "serving status was 0"},
		{"SERVICE_UNKNOWN", 200, typed, fine, "\x08\x03", bad, "serving status was 3"},
		{"no status", 200, typed, nil, serves, bad, `gRPC status was ""`},
		{"UNIMPLEMENTED", 200, typed, http.Header{"Grpc-Status": {"12"}, "Grpc-Message": {"unknown service"}}, serves, bad, `"12": "unknown service"`},
		{"NOT_SERVING under an error", 200, typed, http.Header{"Grpc-Status": {"14"}}, "\x08\x02", bad, `"14"`},
		{"trailers only", 200, http.Header{"Content-Type": {"application/grpc"}, "Grpc-Status": {"5"}}, nil, "", bad, `"5"`},
		{"trailers only, which say OK", 200, http.Header{"Content-Type": {"application/grpc"}, "Grpc-Status": {"0"}}, nil, "", bad, ""},
		{"503", 503, typed, fine, serves, bad, "503"},
		{"not gRPC", 200, http.Header{"Content-Type": {"text/html"}}, fine, serves, bad, "is not gRPC"},
		{"no type", 200, nil, fine, serves, bad, "is not gRPC"},
		{"a message of a megabyte", 200, typed, http.Header{"Grpc-Status": {strings.Repeat("9", 1<<20)}, "Grpc-Message": {strings.Repeat("\n", 1<<20)}}, serves, bad, ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			body := framed(row.body)
			if strings.HasPrefix(row.what, "trailers only") {
				body = nil
			}
			err := judgeGRPC(&http.Response{StatusCode: row.status, Header: row.header, Trailer: row.trailer}, body)
			assert.Equal(t, row.want, findingOf(err), "%v", err)
			if err != nil {
				assert.ErrorContains(t, err, row.says)
				assert.Less(t, len(err.Error()), 1000)
				assert.NotContains(t, err.Error(), "\n")
			}
		})
	}
}
