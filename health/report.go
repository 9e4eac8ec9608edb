package health

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Report is what a server says of its health: the JSON that [Handler] answers with, and that
// the HTTP probe reads. Of a document from elsewhere, any field may be missing, and Status
// any text.
type Report struct {
	// Status is that of the whole.
	Status ReportStatus `json:"status"`
	// Timestamp is when the oldest of the results in Details was obtained, in UTC and whole
	// seconds; without any, when the report was made.
	Timestamp time.Time `json:"timestamp"`
	// Details has an entry for each component, by its name. While the server is starting or
	// draining, there is one more, "server", that says so.
	Details map[string]ComponentReport `json:"details"`
}

// ComponentReport is what a [Report] says of one component.
type ComponentReport struct {
	// Status is [Up] or [Down].
	Status ReportStatus `json:"status"`
	// LatencyMs is how long the check took, in milliseconds.
	LatencyMs int64 `json:"latencyMs"`
	// Error is why the component is Down: "timeout" if its check took too long. It is empty
	// if the component is Up.
	Error string `json:"error,omitempty"`
}

// ReportStatus is the status of a server or of a component in a [Report].
type ReportStatus string

// The statuses.
const (
	// Up means that all is well.
	Up ReportStatus = "UP"
	// Degraded means that only optional components are Down: the server can do its work.
	Degraded ReportStatus = "DEGRADED"
	// Down means that the server had better get no requests.
	Down ReportStatus = "DOWN"
)

// worse returns the status of a whole, a part of which has turned out to be down.
func (s ReportStatus) worse(optional bool) ReportStatus {
	if optional && s != Down {
		return Degraded
	}
	return Down
}

// maxErrorText is how long the text of an error in a report is at most, in bytes.
const maxErrorText = 256

// errorText returns a text as it is shown: valid UTF-8, not too long, and not empty.
func errorText(s string) string {
	if len(s) > maxErrorText {
		end := maxErrorText
		for end > maxErrorText-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	if s = strings.ToValidUTF8(s, "?"); s == "" {
		return textFailed
	}
	return s
}
