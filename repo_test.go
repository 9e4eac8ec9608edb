package evenkeel_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// These tests check the repository itself: who imports whom, what is
// documented, what the modules require. They parse files and run nothing.

const modulePath = "github.com/evenkeel-go/evenkeel"

// library is every package that programs import. A pattern that ends in /*
// stands for all directories below.
const library = ". balancer breaker clock discovery evenkeeltest health limit orca outcome retry session status internal/* contrib/*"

// mayImport lists what the code of a directory, its tests aside, may import of
// evenkeel. Imports go down only: the root, the policies, discovery, and what
// everybody shares. A policy knows no other.
var mayImport = map[string]string{
	".": "balancer breaker clock discovery health limit orca outcome retry session internal/*",

	"balancer": "discovery orca outcome clock internal/*",
	"health":   "discovery outcome clock internal/*",
	"session":  "discovery outcome clock internal/*",
	"retry":    "discovery outcome clock internal/*",
	"breaker":  "outcome clock internal/*",
	"limit":    "outcome clock internal/*",

	"discovery":  "clock outcome internal/*",
	"internal/*": "clock outcome discovery internal/*",
	"outcome":    "internal/*",
	"orca":       "clock internal/*",
	"clock":      "",

	// Above the rest.
	"evenkeeltest": "clock discovery internal/memnet",
	"status":       ". " + public,
	"contrib/*":    ". " + public,
	"examples/*":   ". evenkeeltest status " + public,

	// Not part of what is released.
	"scripts/*":     "",
	"bench/*":       anything,
	"integration/*": anything,
	"simulation/*":  anything,
}

const (
	public   = "balancer breaker clock discovery health limit orca outcome retry session"
	anything = ". evenkeeltest status contrib/* internal/* " + public
)

// publicOnly are directories in which tests, too, see only what users see.
const publicOnly = "contrib/* examples/*"

// thirdParty are the modules that the root module may require.
var thirdParty = []string{
	"github.com/cenkalti/backoff/v4",
	"github.com/stretchr/testify", // in tests
	"golang.org/x/sync",
	"golang.org/x/time",
}

// variables are the package variables that the library may have, with the
// reason, those of the root without a directory. They are never written to. Errors, unexported [...]string{...} tables,
// and assertions such as `var _ Interface = T{}` need no entry.
var variables = map[string]string{
	"clock.System":           "a value without state, the default of every Clock field",
	"internal/call.traceKey": "a key of net/http's, which does not change",
}

// otherGo are the modules whose go directive may differ from the root's, with
// the reason. A contrib module may say what its SDK needs.
var otherGo = map[string]string{
	"tools": "says what the linters need",
}

// outsideWorkspace are the modules that go.work does not list, with the reason.
var outsideWorkspace = map[string]string{
	"tools": "its requirements would raise the versions of all others",
}

func TestImports(t *testing.T) {
	t.Parallel()
	for _, f := range load(t).files {
		for imported, at := range f.imports() {
			dir, ours := cutModule(imported)
			pub := matches(publicOnly, f.dir)
			switch {
			case ours && f.test && pub && strings.Contains("/"+dir+"/", "/internal/"):
				t.Errorf("%s: %s sees public packages only, not %s", f.at(at), f.dir, dir)
			case ours && !f.test:
				allowed, known := lookup(mayImport, f.dir)
				if !known {
					t.Errorf("%s: mayImport says nothing about %s", f.at(at), f.dir)
				} else if dir != f.dir && !matches(allowed, dir) {
					t.Errorf("%s: %s must not import %s", f.at(at), f.dir, dir)
				}
			case !ours && !f.test && matches(library, f.dir):
				if problem := foreign(f.dir, imported); problem != "" {
					t.Errorf("%s: %s imports %s: %s", f.at(at), f.dir, imported, problem)
				}
			}
		}
	}
}

// foreign says why a package of the library must not import one that is not
// ours, or returns "".
func foreign(dir, imported string) string {
	switch {
	case strings.HasPrefix(imported, "github.com/stretchr/testify"):
		return "it is for tests"
	case imported == "testing" && dir == "evenkeeltest":
		return ""
	case imported == "testing" || strings.HasPrefix(imported, "testing/") || imported == "net/http/httptest":
		return "it is for tests, and adds flags to the programs of users"
	case imported == "math/rand":
		return "use math/rand/v2"
	}
	return ""
}

// forbiddenCalls are what the library must ask its clock for.
var forbiddenCalls = map[string][]string{
	"time":    {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
	"context": {"WithTimeout", "WithTimeoutCause", "WithDeadline", "WithDeadlineCause"},
}

// realTime are the directories that may call them: the clock itself, and what
// exists for tests, in which the deadlines of a net.Conn are real time.
const realTime = "clock evenkeeltest internal/memnet"

func TestTimeComesFromTheClock(t *testing.T) {
	t.Parallel()
	for _, f := range load(t).files {
		if f.test || !matches(library, f.dir) || matches(realTime, f.dir) {
			continue
		}
		for pkg, funcs := range forbiddenCalls {
			name, ok := f.localName(pkg)
			if !ok {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if isIdent(sel.X, name) && slices.Contains(funcs, sel.Sel.Name) {
					t.Errorf("%s: %s.%s: use the clock, or package internal/wait", f.at(sel.Pos()), pkg, sel.Sel.Name)
				}
				return true
			})
		}
	}
}

func TestNoGlobalState(t *testing.T) {
	t.Parallel()
	unused := make(map[string]bool)
	for name := range variables {
		unused[name] = true
	}
	for _, f := range load(t).files {
		if f.test || !matches(library, f.dir) {
			continue
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: package %s has an init function", f.at(d.Pos()), f.dir)
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, spec := range d.Specs {
					for i, name := range spec.(*ast.ValueSpec).Names {
						full := strings.TrimPrefix(f.dir+".", "..") + name.Name
						delete(unused, full)
						if variables[full] == "" && !constantVariable(spec.(*ast.ValueSpec), i) {
							t.Errorf("%s: package variable %s: if it must be, give the reason in variables", f.at(name.Pos()), full)
						}
					}
				}
			}
		}
	}
	for name := range unused {
		t.Errorf("variables lists %s, which is gone", name)
	}
}

// constantVariable reports whether the i-th variable is one that nobody has a
// reason to write to: an assertion about types, a table of texts, or an error:
// made by errors.New, a literal of a type of its own, or that of another package.
func constantVariable(spec *ast.ValueSpec, i int) bool {
	name := spec.Names[i].Name
	if name == "_" {
		return true
	}
	if i >= len(spec.Values) {
		return false
	}
	value := spec.Values[i]
	if address, ok := value.(*ast.UnaryExpr); ok && address.Op == token.AND {
		value = address.X
	}
	isErr := strings.HasPrefix(strings.ToLower(name), "err")
	switch v := value.(type) {
	case *ast.CompositeLit:
		if array, ok := v.Type.(*ast.ArrayType); ok && array.Len != nil && !ast.IsExported(name) {
			return isIdent(array.Elt, "string")
		}
		return isErr && isIdent(spec.Type, "error")
	case *ast.CallExpr:
		sel, ok := v.Fun.(*ast.SelectorExpr)
		return isErr && ok && isIdent(sel.X, "errors") && sel.Sel.Name == "New"
	case *ast.SelectorExpr:
		return isErr && strings.HasPrefix(v.Sel.Name, "Err")
	}
	return false
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

func TestEveryPackageHasAComment(t *testing.T) {
	t.Parallel()
	comments := make(map[string][]string) // by directory
	for _, f := range load(t).files {
		if f.test {
			continue
		}
		texts := comments[f.dir]
		if f.ast.Doc != nil {
			texts = append(texts, f.path)
			want := "Package " + f.ast.Name.Name + " "
			if text := f.ast.Doc.Text(); f.ast.Name.Name != "main" && !strings.HasPrefix(text, want) {
				t.Errorf("%s: the package comment must begin with %q", f.path, want)
			}
		}
		comments[f.dir] = texts
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s: want one package comment, got %d: %v", dir, len(files), files)
		}
	}
}

func TestEverythingExportedIsDocumented(t *testing.T) {
	t.Parallel()
	for _, f := range load(t).files {
		if f.test || !matches(library, f.dir) {
			continue
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && (d.Recv == nil || receiver(d).IsExported()) {
					checkDoc(t, f, d.Name, d.Doc)
				}
			case *ast.GenDecl:
				checkGroup(t, f, d)
			}
		}
	}
}

// checkGroup checks a declaration of types, constants or variables.
func checkGroup(t *testing.T, f *goFile, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			doc := s.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			if s.Name.IsExported() {
				checkDoc(t, f, s.Name, doc)
				checkMembers(t, f, s)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					t.Errorf("%s: %s has no comment", f.at(name.Pos()), name.Name)
				}
			}
		}
	}
}

// checkMembers checks the fields of a struct and the methods of an interface,
// where users see them. What is written on one line is explained by the comment
// of the type.
func checkMembers(t *testing.T, f *goFile, s *ast.TypeSpec) {
	t.Helper()
	if strings.HasPrefix(f.dir+"/", "internal/") {
		return
	}
	var members *ast.FieldList
	switch typ := s.Type.(type) {
	case *ast.StructType:
		members = typ.Fields
	case *ast.InterfaceType:
		members = typ.Methods
	default:
		return
	}
	if f.line(members.Pos()) == f.line(members.End()) {
		return
	}
	for _, m := range members.List {
		for _, name := range m.Names {
			if name.IsExported() && m.Doc == nil && m.Comment == nil {
				t.Errorf("%s: %s.%s has no comment", f.at(name.Pos()), s.Name.Name, name.Name)
			}
		}
	}
}

// checkDoc wants a comment that begins with the name.
func checkDoc(t *testing.T, f *goFile, name *ast.Ident, doc *ast.CommentGroup) {
	t.Helper()
	words := strings.Fields(doc.Text())
	if len(words) > 1 && slices.Contains([]string{"A", "An", "The"}, words[0]) {
		words = words[1:]
	}
	switch {
	case len(words) == 0:
		t.Errorf("%s: %s has no comment", f.at(name.Pos()), name.Name)
	case strings.TrimRight(words[0], ",.:;") != name.Name:
		t.Errorf("%s: the comment of %s must begin with its name", f.at(name.Pos()), name.Name)
	}
}

// receiver returns the name of the type that a method belongs to.
func receiver(d *ast.FuncDecl) *ast.Ident {
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x
		default:
			return ast.NewIdent("_")
		}
	}
}

// Budgets of allocations do not hold under the race detector. A build tag
// keeps them out of such runs; a skip would be one more thing to look through.
func TestAllocationBudgetsAreBuiltWithoutRace(t *testing.T) {
	t.Parallel()
	for _, f := range load(t).files {
		if path.Base(f.path) != "alloc_test.go" {
			continue
		}
		if !f.hasLine("//go:build !race") {
			t.Errorf("%s: must begin with //go:build !race", f.path)
		}
		for _, name := range f.tests() {
			if !strings.Contains(name, "Alloc") {
				t.Errorf("%s: %s must have Alloc in its name, make test-alloc looks for it", f.path, name)
			}
		}
	}
}

func TestModules(t *testing.T) {
	t.Parallel()
	r := load(t)
	root := r.modules["."]
	if root == nil {
		t.Fatal("no go.mod")
	}
	for _, req := range root.direct {
		if !slices.Contains(thirdParty, req) {
			t.Errorf("go.mod requires %s: what needs it belongs in a nested module", req)
		}
	}
	if root.replaces {
		t.Error("go.mod has a replace directive, which users would not have")
	}
	used := r.modules["go.work"]
	if used == nil {
		t.Fatal("no go.work")
	}
	if used.replaces {
		t.Error("go.work has a replace directive, which no module has by itself")
	}
	for dir, m := range r.modules {
		if dir == "go.work" {
			continue
		}
		if want := path.Join(modulePath, dir); m.path != want {
			t.Errorf("%s/go.mod: module %s, want %s", dir, m.path, want)
		}
		if slices.Contains(used.uses, dir) == (outsideWorkspace[dir] != "") {
			t.Errorf("%s must either be in go.work or have a reason in outsideWorkspace", dir)
		}
		higher := strings.HasPrefix(dir, "contrib/") && compareVersions(m.goVersion, root.goVersion) >= 0
		if m.goVersion != root.goVersion && otherGo[dir] == "" && !higher {
			t.Errorf("%s/go.mod says go %s, the root %s", dir, m.goVersion, root.goVersion)
		}
	}
	for _, dir := range used.uses {
		if r.modules[dir] == nil {
			t.Errorf("go.work lists %s, which is no module", dir)
		}
	}
}

var (
	behaviourID = regexp.MustCompile(`^[A-Z]-\d\d$`)
	quoted      = regexp.MustCompile("`([^`]*)`")
	rowID       = regexp.MustCompile(`^"([A-Z]-\d\d)"$`)
	testName    = regexp.MustCompile(`^(?:([a-z0-9_/]+)\.)?((?:Test|Fuzz|Example|Benchmark)\w*)(?:/\S.*)?$`)
)

// conformance is how the rows of the conformance suite are named as tests.
const conformance = "TestConformance/"

// TestBehaviours holds docs/behaviours.md against the tests that it names.
func TestBehaviours(t *testing.T) {
	t.Parallel()
	const page = "docs/behaviours.md"
	tests := make(map[string]bool) // "directory TestX", and "TestX" for all directories
	for _, f := range load(t).files {
		for _, name := range f.tests() {
			tests[name] = true
			tests[f.dir+" "+name] = true
		}
		for _, id := range f.conformanceRows() {
			tests[conformance+id] = true
		}
	}
	seen := make(map[string]bool)
	header := false
	for i, line := range lines(t, page) {
		cells, ok := tableRow(line)
		if !ok {
			continue
		}
		at := fmt.Sprintf("%s:%d", page, i+1)
		if len(cells) != 3 {
			t.Errorf("%s: %d cells, want ID, promise, test", at, len(cells))
			continue
		}
		if slices.Equal(cells, []string{"ID", "promise", "test"}) {
			header = true
			continue
		}
		if strings.Trim(strings.Join(cells, ""), "-: ") == "" {
			continue
		}
		id, promise, proof := cells[0], cells[1], cells[2]
		switch {
		case !behaviourID.MatchString(id):
			t.Errorf("%s: %q is no ID such as T-01", at, id)
		case seen[id]:
			t.Errorf("%s: %s is there twice", at, id)
		case promise == "":
			t.Errorf("%s: %s promises nothing", at, id)
		}
		seen[id] = true
		checkProof(t, at, id, proof, tests)
	}
	if !header {
		t.Errorf("%s: no table that begins with | ID | promise | test |", page)
	}
}

// checkProof wants the names of existing tests in backticks, or the reason why
// there are none after "none:".
func checkProof(t *testing.T, at, id, proof string, tests map[string]bool) {
	t.Helper()
	if why, ok := strings.CutPrefix(proof, "none:"); ok {
		if strings.TrimSpace(why) == "" {
			t.Errorf("%s: %s has no test and no reason", at, id)
		}
		return
	}
	names := quoted.FindAllStringSubmatch(proof, -1)
	if len(names) == 0 {
		t.Errorf("%s: %s names no test in backticks", at, id)
	}
	for _, n := range names {
		m := testName.FindStringSubmatch(n[1])
		if m == nil {
			t.Errorf("%s: %s: %q is not the name of a test", at, id, n[1])
			continue
		}
		key := m[2]
		if strings.HasPrefix(n[1], conformance) { // its rows are the tests
			key = n[1]
		}
		if dir := m[1]; dir == "evenkeel" {
			key = ". " + key
		} else if dir != "" {
			key = dir + " " + key
		}
		if !tests[key] {
			t.Errorf("%s: %s: there is no test %s", at, id, n[1])
		}
	}
}

// tableRow splits a row of a Markdown table. A bar in a cell is written \|.
func tableRow(line string) ([]string, bool) {
	line = strings.TrimSpace(line)
	if len(line) < 2 || !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") {
		return nil, strings.HasPrefix(line, "|")
	}
	const bar = "\x00"
	cells := strings.Split(strings.ReplaceAll(line[1:len(line)-1], `\|`, bar), "|")
	for i, c := range cells {
		cells[i] = strings.ReplaceAll(strings.TrimSpace(c), bar, "|")
	}
	return cells, true
}

// TestReadme checks what a newcomer meets first: code soon, and two commands.
func TestReadme(t *testing.T) {
	t.Parallel()
	const (
		codeBy  = 25
		section = "## Set up"
	)
	commands := []string{"go run ./examples/quickstart", "make test"}

	var heading, language string
	var block []string
	fenced, firstCode, setUps := false, 0, 0
	for i, line := range lines(t, "README.md") {
		mark, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !fenced:
			fenced, language, block = true, mark, nil
			if language == "go" && firstCode == 0 {
				firstCode = i + 1
			}
		case isFence:
			fenced = false
			if heading != section {
				continue
			}
			setUps++
			if language != "sh" || !slices.Equal(block, commands) {
				t.Errorf("README.md:%d: the block of %q must be ```sh with exactly %q, got %q with %q", i+1, section, commands, language, block)
			}
		case fenced:
			block = append(block, line)
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(line)
		}
	}
	if firstCode == 0 || firstCode > codeBy {
		t.Errorf("README.md: the first ```go block must begin by line %d, it is at %d", codeBy, firstCode)
	}
	if setUps != 1 {
		t.Errorf("README.md: %q must have exactly one block of commands, got %d", section, setUps)
	}
}

// repository is what the tests above look at.
type repository struct {
	files   []*goFile
	modules map[string]*module // by directory; go.work is under its own name
}

// goFile is a parsed Go file.
type goFile struct {
	path string // from the root of the repository, with slashes
	dir  string
	test bool
	fset *token.FileSet
	ast  *ast.File
}

// module is what matters of a go.mod or go.work file.
type module struct {
	path, goVersion string
	direct, uses    []string
	replaces        bool
}

var loadOnce = sync.OnceValues(readRepository)

func load(t *testing.T) *repository {
	t.Helper()
	r, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readRepository() (*repository, error) {
	r := &repository{modules: make(map[string]*module)}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base, slashed := entry.Name(), filepath.ToSlash(name)
		switch {
		case entry.IsDir():
			if name != "." && (base == "testdata" || slashed == "bin" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
		case base == "go.mod" || slashed == "go.work":
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			key := path.Dir(slashed)
			if base == "go.work" {
				key = base
			}
			r.modules[key] = parseModule(string(text))
		case strings.HasSuffix(base, ".go"):
			parsed, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			r.files = append(r.files, &goFile{
				path: slashed, dir: path.Dir(slashed), test: strings.HasSuffix(base, "_test.go"), fset: fset, ast: parsed,
			})
		}
		return nil
	})
	return r, err
}

// parseModule reads as much of the syntax as gofmt and the go command leave.
func parseModule(text string) *module {
	m := &module{}
	block := ""
	for line := range strings.Lines(text) {
		line, comment, _ := strings.Cut(line, "//")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case words[0] == ")":
			block = ""
			continue
		case len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case block != "":
			words = append([]string{block}, words...)
		}
		switch words[0] {
		case "module":
			m.path = words[1]
		case "go":
			m.goVersion = words[1]
		case "require":
			if strings.TrimSpace(comment) != "indirect" {
				m.direct = append(m.direct, words[1])
			}
		case "replace":
			m.replaces = true
		case "use":
			m.uses = append(m.uses, path.Clean(words[1]))
		}
	}
	return m
}

// compareVersions compares versions such as 1.25 and 1.26.1 by number.
func compareVersions(a, b string) int {
	numbers := func(s string) (n []int) {
		for part := range strings.SplitSeq(s, ".") {
			i, _ := strconv.Atoi(part)
			n = append(n, i)
		}
		return n
	}
	return slices.Compare(numbers(a), numbers(b))
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// matches reports whether one of the space-separated patterns is for the
// directory.
func matches(patterns, dir string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(p string) bool {
		below, all := strings.CutSuffix(p, "/*")
		return p == dir || all && (dir == below || strings.HasPrefix(dir, below+"/"))
	})
}

// lookup returns the entry of the table whose pattern is for the directory.
func lookup(table map[string]string, dir string) (string, bool) {
	for pattern, entry := range table {
		if matches(pattern, dir) {
			return entry, true
		}
	}
	return "", false
}

// cutModule returns the directory of an import path of this repository.
func cutModule(imported string) (dir string, ours bool) {
	if imported == modulePath {
		return ".", true
	}
	return strings.CutPrefix(imported, modulePath+"/")
}

func (f *goFile) line(p token.Pos) int { return f.fset.Position(p).Line }

func (f *goFile) at(p token.Pos) string { return fmt.Sprintf("%s:%d", f.path, f.line(p)) }

// imports returns the paths that the file imports, and where.
func (f *goFile) imports() map[string]token.Pos {
	all := make(map[string]token.Pos)
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			all[p] = spec.Pos()
		}
	}
	return all
}

// localName returns the name under which the file knows a package of the
// standard library.
func (f *goFile) localName(pkg string) (string, bool) {
	for _, spec := range f.ast.Imports {
		if spec.Path.Value != strconv.Quote(pkg) {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name, true
		}
		return path.Base(pkg), true
	}
	return "", false
}

func (f *goFile) hasLine(want string) bool {
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			if c.Text == want {
				return true
			}
		}
	}
	return false
}

// conformanceRows returns the IDs of the rows that the file adds to the conformance
// suite: the literals that are an ID and nothing else.
func (f *goFile) conformanceRows() (ids []string) {
	if !strings.HasPrefix(f.path, "conformance_") {
		return nil
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && rowID.MatchString(lit.Value) {
			ids = append(ids, strings.Trim(lit.Value, `"`))
		}
		return true
	})
	return ids
}

// tests returns the tests, examples, benchmarks and fuzz tests of the file.
func (f *goFile) tests() []string {
	var names []string
	for _, decl := range f.ast.Decls {
		if d, ok := decl.(*ast.FuncDecl); ok && f.test && d.Recv == nil && testName.MatchString(d.Name.Name) && d.Name.Name != "TestMain" {
			names = append(names, d.Name.Name)
		}
	}
	return names
}
