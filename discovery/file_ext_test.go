package discovery_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// document is a file with the given addresses.
func document(list ...string) string {
	entries := make([]string, 0, len(list))
	for _, address := range list {
		entries = append(entries, fmt.Sprintf(`{"address":%q}`, address))
	}
	return `{"endpoints":[` + strings.Join(entries, ",") + `]}`
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// TestFile_SeesEveryKindOfChange_D14. Each change keeps the length of the file,
// and the virtual time of the bubble means nothing to the file system: only the
// content can tell.
func TestFile_SeesEveryKindOfChange_D14(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(t *testing.T, path string)
		want   []string // after "0s [a:1]"
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"written in place", func(t *testing.T, path string) {
			t.Helper()
			write(t, path, document("b:1"))
		}, []string{"1s [b:1]"}},
		{"written anew with the same content", func(t *testing.T, path string) {
			t.Helper()
			write(t, path, document("a:1"))
		}, nil},
		{"with the time of modification set back", func(t *testing.T, path string) {
			t.Helper()
			info, err := os.Stat(path)
			require.NoError(t, err)
			write(t, path, document("b:1"))
			require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, []string{"1s [b:1]"}},
		{"renamed over", func(t *testing.T, path string) {
			t.Helper()
			write(t, path+".new", document("b:1"))
			require.NoError(t, os.Rename(path+".new", path))
		}, []string{"1s [b:1]"}},
		{"deleted and created", func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			time.Sleep(2 * time.Second)
			write(t, path, document("b:1"))
		}, []string{"1s failed", "3s [b:1]"}},
		{"deleted and created as it was", func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			time.Sleep(2 * time.Second)
			write(t, path, document("a:1"))
		}, []string{"1s failed", "3s [a:1]"}},
		{"truncated", func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Truncate(path, 10))
		}, []string{"1s failed"}},
		{"emptied, then written", func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Truncate(path, 0))
			time.Sleep(2 * time.Second)
			write(t, path, document("b:1"))
		}, []string{"1s failed", "3s [b:1]"}},
		{"no endpoints any more", func(t *testing.T, path string) {
			t.Helper()
			write(t, path, document())
		}, []string{"1s []"}},
		{"nonsense", func(t *testing.T, path string) {
			t.Helper()
			write(t, path, "no JSON")
		}, []string{"1s failed"}},
		{"one kind of nonsense after the other", func(t *testing.T, path string) {
			t.Helper()
			write(t, path, "no JSON")
			time.Sleep(2 * time.Second)
			write(t, path, "[]")
		}, []string{"1s failed", "3s failed"}},
		{"a directory", func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		}, []string{"1s failed"}},
		{"too large", func(t *testing.T, path string) {
			t.Helper()
			write(t, path, document("b:1")+strings.Repeat(" ", 16<<20))
		}, []string{"1s failed"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "endpoints.json")
			write(t, path, document("a:1"))
			synctest.Test(t, func(t *testing.T) {
				w := start(t, discovery.File{Path: path})
				time.Sleep(500 * time.Millisecond)
				row.change(t, path)
				time.Sleep(time.Minute)
				assert.Equal(t, append([]string{"0s [a:1]"}, row.want...), lines(w.stop()))
			})
		})
	}
}

// TestFile_SwapOfTheDataLink_D14 is how Kubernetes updates a mounted ConfigMap:
// the file is a link into ..data, which is a link to a directory with a time in
// its name, and is replaced by a rename.
func TestFile_SwapOfTheDataLink_D14(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(name, content string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "endpoints.json"), content)
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("..2026_01_01", document("a:1"))
	path := filepath.Join(dir, "endpoints.json")
	require.NoError(t, os.Symlink(filepath.Join("..data", "endpoints.json"), path))
	synctest.Test(t, func(t *testing.T) {
		w := start(t, discovery.File{Path: path})
		time.Sleep(500 * time.Millisecond)
		version("..2026_01_02", document("b:1"))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "..2026_01_01")))
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"0s [a:1]", "1s [b:1]"}, lines(w.stop()))
	})
}

// TestFile_BadContentKeepsTheOldSet_D14, as the owner of the endpoints sees it.
func TestFile_BadContentKeepsTheOldSet_D14(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, document("a:1", "b:1"))
	for _, bad := range []string{"", "{", document("a:1")[:20], "null", `{"endpoints":null}`, `{"endpoint":[]}`, document("c:1") + "x"} {
		synctest.Test(t, func(t *testing.T) {
			write(t, path, document("a:1", "b:1"))
			w := start(t, discovery.LastGood{Resolver: discovery.File{Path: path}})
			time.Sleep(500 * time.Millisecond)
			write(t, path, bad)
			time.Sleep(5 * time.Minute)
			assert.Equal(t, []string{"0s [a:1 b:1]", "1s failed"}, lines(w.stop()), "%q", bad)
		})
	}
}

func TestFile_ThatIsNotThereYet_D14(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "endpoints.json")
	synctest.Test(t, func(t *testing.T) {
		w := start(t, discovery.File{Path: path, Interval: 5 * time.Second})
		time.Sleep(12 * time.Second)
		write(t, path, document("a:1"))
		time.Sleep(12 * time.Second)
		all := w.stop()
		assert.Equal(t, []string{"0s failed", "15s [a:1]"}, lines(all))
		require.ErrorIs(t, all[0].failed, os.ErrNotExist)
		require.ErrorContains(t, all[0].failed, "discovery: ")
	})
}

// TestFile_Refresh: a file that is rarely looked at is looked at when endpoints
// fail, but not ten thousand times a second.
func TestFile_Refresh(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, document("a:1"))
	synctest.Test(t, func(t *testing.T) {
		w := start(t, discovery.File{Path: path, Interval: time.Hour})
		time.Sleep(200 * time.Millisecond)
		write(t, path, document("b:1"))
		w.ask()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"0s [a:1]", "1s [b:1]"}, lines(w.stop()))
	})
}

// TestFile_OneBadEntry_D06: of 250 entries one is not valid.
func TestFile_OneBadEntry_D06(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "endpoints.json")
	var list []string
	for i := range 250 {
		list = append(list, fmt.Sprintf("10.0.1.%d:80", i))
	}
	list[100] = "10.0.1.100"
	write(t, path, document(list...))
	synctest.Test(t, func(t *testing.T) {
		w := start(t, discovery.File{Path: path})
		synctest.Wait()
		all := w.stop()
		require.Len(t, all, 1)
		assert.Len(t, all[0].set, 249)
		var skipped *discovery.SkippedError
		require.ErrorAs(t, all[0].skipped, &skipped)
		assert.Equal(t, 1, skipped.Count)
		require.ErrorContains(t, skipped, "endpoints[100]")
	})
}
