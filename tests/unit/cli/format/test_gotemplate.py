"""Templates as scripts write them for --format, against what Go's text/template prints."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.cli.format.gofuncs import Nanoseconds, Nil, NilList, NilMap, NilSet, Set, Struct, Time
from builda.cli.format.gotemplate import Template
from builda.errors import InvalidValue

DATA = Struct(
    {
        "Name": "app",
        "Tags": ["a", "b"],
        "Labels": {"k": "v", "a.b": "c"},
        "Config": Struct({"User": "", "Env": ["A=1"], "Count": 3}, {"Env": ["A=1"]}),
        "Nothing": None,
        "Empty": [],
        "On": True,
        "Ratio": 1.5,
    }
)


def render(template: str, data: object = DATA) -> str:
    return Template(template).render(data)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "app"),
        ("{{ .Config.Count }}", "3"),
        ("{{.Tags}} {{.Labels}} {{.On}} {{.Ratio}}", "[a b] map[a.b:c k:v] true 1.5"),
        ("{{.Config}}", "{ [A=1] 3}"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Labels.k}}{{.Labels.missing}}", "v<no value>"),
        ("{{json .Config}}", '{"Env":["A=1"]}'),
        ("{{json .Nothing}} {{json .Empty}} {{json .Name}}", 'null [] "app"'),
        ('{{index .Labels "a.b"}}', "c"),
        ('{{index .Labels "missing"}}|', "|"),
        ("{{index .Tags 1}}", "b"),
        ("{{index .Config.Env 0}}", "A=1"),
        ('{{join .Tags ","}}', "a,b"),
        ('{{index (split "x:y" ":") 1}}', "y"),
        ('{{title "hello world"}} {{upper "x"}} {{lower "Y"}}', "Hello World X y"),
        ('[{{pad "x" 1 2}}] {{truncate "hello" 2}} {{truncate "h" 9}}', "[ x  ] he h"),
        ("{{len .Tags}} {{len .Name}} {{len .Labels}}", "2 3 2"),
        ('{{slice "hello" 1 3}}{{slice .Tags 1}}', "el[b]"),
        ('{{printf "%s=%d %v %q %05.1f%%" .Name 3 .Tags "x" 2.5}}', 'app=3 [a b] "x" 002.5%'),
        ('{{printf "%-5s|%5s|%.2s" "ab" "cd" "xyz"}}', "ab   |   cd|xy"),
        ('{{printf "%x %t %T" 255 true 1}}', "ff true int"),
        ('{{printf "%d" "x"}} {{printf "%s"}} {{printf "" 1}}', "%!d(string=x) %!s(MISSING) %!(EXTRA int=1)"),
        ('{{print "a" "b" 1 2}} {{println "x"}}', "ab1 2 x\n"),
        ('{{html "<a>"}} {{urlquery "a b&"}}', "&lt;a&gt; a+b%26"),
        ("{{.Name | upper}}", "APP"),
        ('{{"," | join .Tags | upper | printf "%-6s|"}}', "A,B   |"),
        ("{{$.Name}}", "app"),
        ("{{$x := .Name}}{{$x}}{{$x = 1}}{{$x}}", "app1"),
        ("{{true}} {{nil | json}} {{`raw\\n`}} {{\"a\\tb\\u0041\"}} {{'a'}}", "true null raw\\n a\tbA 97"),
    ],
)
def test_a_template_gives_what_go_gives(template: str, expected: str) -> None:
    assert render(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{if .On}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}yes{{else}}no{{end}}", "no"),
        ("{{if .Config.User}}u{{else if .Tags}}t{{else}}n{{end}}", "t"),
        ("{{if .Nothing}}u{{else if .Empty}}t{{else}}n{{end}}.", "n."),
        ("{{if .Nothing}}x{{end}}", ""),
        ("{{if .Config}}a struct is true{{end}}", "a struct is true"),
        ('{{if and .On (eq .Name "app")}}both{{end}}', "both"),
        ('{{and .Name 0}} {{or .Empty "d"}} {{not .On}}', "0 d false"),
        ("{{and .Empty (index .Tags 9)}}", "[]"),  # what is not needed is not looked at
        (
            '{{eq .Name "x" "app"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 2}}',
            "true true true true false true",
        ),
        ("{{range .Tags}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $t := .Tags}}{{$i}}{{$t}}{{end}}", "0a1b"),
        ("{{range $t := .Tags}}{{$t}}{{$.Name}}{{end}}", "aappbapp"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a.b=c;k=v;"),
        ('{{range .Tags}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
        ('{{range .Tags}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}', "b"),
        ("{{with .Config}}{{.Count}}{{end}}", "3"),
        ("{{with .Nothing}}x{{else}}none of {{.Name}}{{end}}", "none of app"),
        ("{{with $c := .Config}}{{$c.Count}}{{end}}", "3"),
        ("{{if $x := .Name}}{{$x}}{{end}}", "app"),
    ],
)
def test_control_follows_go(template: str, expected: str) -> None:
    assert render(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {{- .Name}} b", "aapp b"),
        ("a {{.Name -}} b", "a appb"),
        ("a\n{{- /* why */ -}}\n b", "ab"),
        ("{{/* a }} b */}}x", "x"),
        ("{{range .Tags}}\n  {{- .}}\n{{- end}}", "ab"),
    ],
)
def test_markers_trim_white_space(template: str, expected: str) -> None:
    assert render(template) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Foo}}", "no such field: .Foo"),
        ("{{.Config.Bar}}", "no such field: .Bar"),
        ("{{.Name.Bar}}", "has no fields: .Bar"),
        ("{{.Nothing.Bar}}", "nil has no fields: .Bar"),
        ("{{index .Tags 2}}", "index out of range"),
        ('{{index .Tags "x"}}', "not a number"),
        ("{{$y}}", "undefined variable: $y"),
        ("{{eq .Name 1}}", "incompatible types"),
        ("{{upper 1}}", "upper cannot take: 1"),
        ("{{join .Name 2}}", "join"),
    ],
)
def test_what_does_not_fit_the_value_is_named(template: str, words: str) -> None:
    with pytest.raises(InvalidValue, match="template cannot be filled in") as caught:
        render(template)
    assert words in str(caught.value)


def test_an_unknown_field_comes_with_those_there_are() -> None:
    with pytest.raises(InvalidValue) as caught:
        render("{{.Foo}}")
    assert caught.value.hint is not None
    assert ".Name .Tags" in caught.value.hint


@pytest.mark.parametrize(
    "template",
    [
        "{{.Name",
        "{{end}}",
        "{{else}}",
        "{{if .Name}}",
        "{{if}}{{end}}",
        "{{foo}}",
        "{{.Name | .Tags}}",
        "{{.Name | }}",
        "{{(.Name}}",
        "{{.Name)}}",
        "{{.Name .Tags}}",
        '{{template "x"}}',
        '{{define "x"}}{{end}}',
        "{{break}}",
        "{{$x := }}",
        "{{~}}",
        '{{"open}}',
    ],
)
def test_a_malformed_template_prints_nothing_and_says_where(template: str) -> None:
    with pytest.raises(InvalidValue, match=r"template cannot be read: .*in line 1"):
        Template(template)


@given(st.text(alphabet=st.characters(exclude_characters="{}"), max_size=40))
def test_text_without_actions_comes_out_as_it_is(text: str) -> None:
    assert render(text) == text


@pytest.mark.parametrize(
    "template", ["{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "{{if 1}}" * 5000 + "{{end}}" * 5000]
)
def test_a_template_that_is_nested_deep_is_refused(template: str) -> None:
    with pytest.raises(InvalidValue, match="nested too deep"):
        render(template)


def test_a_value_that_is_nested_deep_is_refused() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    for template in ("{{.}}", "{{json .}}", '{{printf "%q" .}}', "{{len .}}"):
        with suppress(InvalidValue):
            render(template, deep)


TYPED = Struct(
    {
        "Name": "app",
        "Tags": ["a", "b"],
        "Labels": {"k": "v", "q": 'a"b\x1b\u00e9'},
        "Config": Struct({"User": "", "Count": 3}),
        "Nothing": None,
        "Set": Set(["/v"]),
        "NoSet": NilSet(),
        "Unmade": NilMap(),
        "List": NilList(),
        "Pointer": Nil(),
        "Made": Time("2026-11-28T04:09:14Z"),
        "Precise": Time("2026-11-28T04:09:14.120000000Z"),
        "Away": Time("2026-11-28T04:09:14+02:00"),
        "Never": Time("0001-01-01T00:00:00Z"),
        "Odd": Time("yesterday"),
        "Wait": Nanoseconds(90 * 10**9),
        "Deep": [[{"a": [1]}]],
    }
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Set}} {{json .Set}}", 'map[/v:{}] {"/v":{}}'),
        (
            '{{index .Set "/v"}} {{index .Set "/x"}} {{index .NoSet "/x"}} {{.NoSet}} {{json .NoSet}}',
            "{} {} {} map[] null",
        ),
        ("{{.Unmade}} {{.List}} {{.Pointer}}", "map[] [] <nil>"),
        ("{{json .Unmade}} {{json .List}} {{json .Pointer}}", "null null null"),
        ('[{{index .Unmade "k"}}] {{len .Unmade}} {{if .Unmade}}x{{end}}{{if .Pointer}}x{{end}}', "[] 0 "),
        ("{{range .Unmade}}x{{end}}{{range .List}}x{{else}}none{{end}}", "none"),
        ("{{.Made}}|{{.Precise}}", "2026-11-28 04:09:14 +0000 UTC|2026-11-28 04:09:14.12 +0000 UTC"),
        ("{{.Away}}|{{.Never}}", "2026-11-28 04:09:14 +0200 +0200|0001-01-01 00:00:00 +0000 UTC"),
        (
            '{{.Odd}} {{json .Made}} {{printf "%s" .Made}}',
            'yesterday "2026-11-28T04:09:14Z" 2026-11-28 04:09:14 +0000 UTC',
        ),
        ("{{.Wait}} {{json .Wait}}", "1m30s 90000000000"),
        ('{{printf "%q" .Labels}}', r'map["k":"v" "q":"a\"b\x1bé"]'),
        ('{{printf "%q %q %q" .Tags .Name 97}}', """["a" "b"] "app" 'a'"""),
        ('{{printf "%q" .Config}}', r"""{"" '\x03'}"""),
        ('{{printf "%99999999999s|%.99999999999s|%5s" "x" "y" "z"}}', "%!(BADWIDTH)x|%!(BADPREC)y|    z"),
        ('{{printf "%*d" 3 7}}', "  7"),
    ],
)
def test_values_print_as_gos_types_do(template: str, expected: str) -> None:
    assert render(template, TYPED) == expected


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (2 * 10**6, "2ms"),
        (10**9, "1s"),
        (1_500_000_000, "1.5s"),
        (60 * 10**9, "1m0s"),
        (3600 * 10**9, "1h0m0s"),
        (-90 * 10**9, "-1m30s"),
        (5_400_000_000_001, "1h30m0.000000001s"),
    ],
)
def test_a_span_prints_as_in_go(nanoseconds: int, shown: str) -> None:
    assert str(Nanoseconds(nanoseconds)) == shown


@given(st.text(max_size=20))
def test_a_value_is_never_taken_for_a_template(text: str) -> None:
    assert render("{{.Name}}", Struct({"Name": text})) == text
