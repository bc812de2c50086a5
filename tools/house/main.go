// House counts how the files of the core package and of its internal packages know each
// other: which file uses what another file declares. It reads types, not text.
//
//	cd tools && go run ./house ..
//
// A pair is two files of which one uses a package-level name, a method or a field that the
// other declares. It is mutual if each uses the other. Files are then put in a row, so that
// as few arrows as a greedy search finds run back up it: a file should come after all that
// use it.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// arrow is a use of one file's declarations by another.
type arrow struct{ from, to string }

func main() {
	list := flag.Bool("list", false, "list the mutual pairs and the arrows that run back up")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: house [-list] <directory of the core package>")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *list); err != nil {
		fmt.Fprintln(os.Stderr, "house:", err)
		os.Exit(1)
	}
}

func run(root string, list bool) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	fset := token.NewFileSet()
	config := &packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedDeps,
		Dir:  root, Fset: fset,
	}
	patterns := []string{"."}
	for _, internal := range []string{"wire", "store"} {
		if _, err := os.Stat(filepath.Join(root, "internal", internal)); err == nil {
			patterns = append(patterns, "./internal/"+internal)
		}
	}
	loaded, err := packages.Load(config, patterns...)
	if err != nil {
		return err
	}
	if packages.PrintErrors(loaded) > 0 {
		return fmt.Errorf("%s does not build", root)
	}
	name := func(pos token.Pos) string {
		path, err := filepath.Rel(root, fset.Position(pos).Filename)
		if err != nil || strings.HasPrefix(path, "..") {
			return "" // the standard library, or another module
		}
		return path
	}
	all, inRoot := make(map[arrow]bool), make(map[arrow]bool)
	longestFile, longestFunc := "", ""
	lines, funcLines, files := 0, 0, 0
	for _, p := range loaded {
		for ident, object := range p.TypesInfo.Uses {
			from, to := name(ident.Pos()), name(object.Pos())
			if from == to || to == "" || object.Pkg() == nil {
				continue
			}
			all[arrow{from, to}] = true
			if !strings.Contains(from+to, string(filepath.Separator)) {
				inRoot[arrow{from, to}] = true
			}
		}
		for _, file := range p.Syntax {
			files++
			if n := fset.File(file.Pos()).LineCount() - 1; n > lines {
				lines, longestFile = n, name(file.Pos())
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if f, ok := n.(*ast.FuncDecl); ok {
					if n := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1; n > funcLines {
						funcLines, longestFunc = n, f.Name.Name
					}
				}
				return true
			})
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	fmt.Printf("entries of the root listing   %d\n", len(entries))
	fmt.Printf("files                         %d\n", files)
	tell("of the root package", inRoot, list)
	tell("with internal/wire and store", all, list)
	fmt.Printf("longest file                  %d lines, %s\n", lines, longestFile)
	fmt.Printf("longest function              %d lines, %s\n", funcLines, longestFunc)
	return nil
}

// tell prints the figures of some arrows.
func tell(what string, arrows map[arrow]bool, list bool) {
	pairs := make(map[arrow]bool)
	var mutual []arrow
	for a := range arrows {
		if arrows[arrow{a.to, a.from}] && a.from < a.to {
			mutual = append(mutual, a)
		}
		pairs[arrow{min(a.from, a.to), max(a.from, a.to)}] = true
	}
	back := backUp(arrows)
	fmt.Printf("%s:\n  pairs %d, mutual %d, arrows %d, of which back up %d\n", what, len(pairs), len(mutual), len(arrows), len(back))
	if list {
		order := func(a, b arrow) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) }
		slices.SortFunc(mutual, order)
		slices.SortFunc(back, order)
		for _, a := range mutual {
			fmt.Println("  mutual ", a.from, a.to)
		}
		for _, a := range back {
			fmt.Println("  back up", a.from, a.to)
		}
	}
}

// backUp puts the files in a row and returns the arrows that run back up it. The row is
// that of Eades, Lin and Smyth: sources first, sinks last, and in between the file that
// uses most and is used least. Then files change places while that helps.
func backUp(arrows map[arrow]bool) []arrow {
	left := make(map[string]bool)
	for a := range arrows {
		left[a.from], left[a.to] = true, true
	}
	degrees := func(file string) (in, out int) {
		for a := range arrows {
			if a.from == file && left[a.to] {
				out++
			}
			if a.to == file && left[a.from] {
				in++
			}
		}
		return in, out
	}
	var first, last []string
	for len(left) > 0 {
		names := make([]string, 0, len(left))
		for n := range left {
			names = append(names, n)
		}
		slices.Sort(names)
		best, most, sink := "", 0, false
		for _, n := range names {
			in, out := degrees(n)
			if out == 0 {
				best, sink = n, true
				break
			}
			if best == "" || in == 0 || out-in > most {
				best, most = n, out-in
				if in == 0 {
					break
				}
			}
		}
		delete(left, best)
		if sink {
			last = append(last, best)
		} else {
			first = append(first, best)
		}
	}
	slices.Reverse(last)
	row := append(first, last...)
	count := func() (back []arrow) {
		at := make(map[string]int, len(row))
		for i, n := range row {
			at[n] = i
		}
		for a := range arrows {
			if at[a.from] > at[a.to] {
				back = append(back, a)
			}
		}
		return back
	}
	for best := len(count()); ; {
		before := best
		for i := range row {
			for j := range row {
				file := row[i]
				row = slices.Insert(slices.Delete(row, i, i+1), j, file)
				if n := len(count()); n < best {
					best = n
					break
				}
				row = slices.Insert(slices.Delete(row, j, j+1), i, file)
			}
		}
		if best == before {
			return count()
		}
	}
}
