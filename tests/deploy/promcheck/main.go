// Reads alert rules and expressions of a dashboard with Prometheus' own parser, and prints the metrics that they name.
//
//	promcheck RULES.yaml DASHBOARD.json
package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	if len(os.Args) != 3 {
		fail("usage: promcheck RULES.yaml DASHBOARD.json")
	}
	p := parser.NewParser(parser.Options{})
	names := map[string]bool{}
	rules(p, os.Args[1], names)
	dashboard(p, os.Args[2], names)
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	fmt.Println(strings.Join(sorted, "\n"))
}

func rules(p parser.Parser, path string, names map[string]bool) {
	groups, errs := rulefmt.ParseFile(path, false, model.UTF8Validation, p, slog.Default())
	for _, err := range errs {
		fail("%s: %v", path, err)
	}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			metrics(p, path+": "+rule.Alert, rule.Expr, names)
		}
	}
}

func dashboard(p parser.Parser, path string, names map[string]bool) {
	file, err := os.ReadFile(path)
	if err != nil {
		fail("%v", err)
	}
	var read struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(file, &read); err != nil {
		fail("%s: %v", path, err)
	}
	// Grafana's variables stand where Prometheus expects a duration or a text.
	variables := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h")
	for _, panel := range read.Panels {
		for _, target := range panel.Targets {
			metrics(p, path+": "+panel.Title, variables.Replace(target.Expr), names)
		}
	}
}

func metrics(p parser.Parser, where, expression string, names map[string]bool) {
	parsed, err := p.ParseExpr(expression)
	if err != nil {
		fail("%s: %v", where, err)
	}
	for _, selectors := range parser.ExtractSelectors(parsed) {
		for _, matcher := range selectors {
			if matcher.Name == labels.MetricName {
				names[matcher.Value] = true
			}
		}
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}
