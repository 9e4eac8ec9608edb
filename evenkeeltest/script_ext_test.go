package evenkeeltest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

func TestScript(t *testing.T) {
	t.Parallel()
	own := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, row := range []struct {
		name  string
		steps []http.Handler
		want  []int
	}{
		{"empty", nil, []int{200, 200}},
		{"the last repeats", []http.Handler{evenkeeltest.Status(500), own}, []int{500, http.StatusTeapot, http.StatusTeapot}},
		{
			"repeat",
			[]http.Handler{evenkeeltest.Repeat(2, evenkeeltest.Status(500)), evenkeeltest.OK("a")},
			[]int{500, 500, 200, 200},
		},
		{"repeat none", []http.Handler{evenkeeltest.Repeat(0, own), evenkeeltest.OK("a")}, []int{200}},
		{
			"nested",
			[]http.Handler{evenkeeltest.Repeat(2, evenkeeltest.Script(own, evenkeeltest.Status(500))), evenkeeltest.OK("a")},
			[]int{http.StatusTeapot, 500, 200},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			script := evenkeeltest.Script(row.steps...)
			for _, want := range row.want {
				w := httptest.NewRecorder()
				script.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
				assert.Equal(t, want, w.Code)
			}
		})
	}
}
