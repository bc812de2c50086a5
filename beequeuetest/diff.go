package beequeuetest

import (
	"slices"
	"strings"
)

// diff shows how got differs from want, line by line; "" if it does not. Lines
// end in a newline. What is far from a difference is left out, and so is what
// comes long after the first one.
func diff(want, got []string) string {
	if slices.Equal(want, got) {
		return ""
	}
	var lines []string
	for len(want) > 0 && len(got) > 0 && want[0] == got[0] {
		lines = append(lines, "  "+want[0])
		want, got = want[1:], got[1:]
	}
	const most = 1000 // lines; the table below has the square of it
	want, got = want[:min(most, len(want))], got[:min(most, len(got))]
	// common[i][j] is how many lines want[i:] and got[j:] have in common.
	common := make([][]int, len(want)+1)
	for i := range common {
		common[i] = make([]int, len(got)+1)
	}
	for i, line := range slices.Backward(want) {
		for j, other := range slices.Backward(got) {
			if line == other {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(want) || j < len(got); {
		switch {
		case i < len(want) && j < len(got) && want[i] == got[j]:
			lines = append(lines, "  "+want[i])
			i, j = i+1, j+1
		case j == len(got) || i < len(want) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, "- "+want[i])
			i++
		default:
			lines = append(lines, "+ "+got[j])
			j++
		}
	}
	return excise(lines)
}

// excise joins the lines of a diff and leaves out those far from a difference.
func excise(lines []string) string {
	const near = 8
	differs := func(line string) bool { return line[0] != ' ' }
	var b strings.Builder
	skipped := false
	for i, line := range lines {
		if slices.ContainsFunc(lines[max(0, i-near):min(len(lines), i+near+1)], differs) {
			b.WriteString(line)
			skipped = false
		} else if !skipped {
			b.WriteString("  …\n")
			skipped = true
		}
	}
	return b.String()
}
