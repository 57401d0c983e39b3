"""The page. Texts of Containerfiles, commands and images stand in it escaped, and a policy in its head allows no script
but its own and no connection at all."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from builda.cli.format.table import human_size
from builda.cli.report.layerrows import Row, nested, tree_of
from builda.cli.report.recording import Build, ImageLayers, LayerFiles, Step, Wait
from builda.display import displayed
from builda.events import Warned

_TICKS = 5
"""Marks on the axis of time."""
_SLACK = 0.05
"""Seconds by which the end of a step may be told after the begin of one that waited for it."""


def page(build: Build, title: str) -> str:
    """One HTML document of a build or a session; it is the same for equal values."""
    body = "\n".join((_head(build, title), _timeline(build), _steps(build), _layers(build), _warnings(build)))
    return f"{_BEFORE_TITLE}{_text(title)}{_BEFORE_BODY}{body}{_END}"


def _head(build: Build, title: str) -> str:
    cached = sum(step.cached for step in build.steps)
    remembered = [f"{cached} remembered"] if cached or build.noun == "steps" else []
    waited = sum(wait.seconds for step in build.steps for wait in step.waits)
    waits = [f"{waited:.2f} s of waiting for others"] if waited else []
    facts = [f"{build.seconds:.2f} s", f"{len(build.steps)} {build.noun}", *remembered, *waits, *build.ended.facts]
    state, word = "good" if build.ended.is_good else "bad", build.ended.word
    items = "".join(f"<li>{_text(fact)}</li>" for fact in facts)
    return f'<h1><span class="{state}">{word}</span> {_text(title)}</h1>\n<ul class="facts">{items}</ul>'


def _timeline(build: Build) -> str:
    """A row for each stage, or for commands that ran one after the other, and in it a bar for each step."""
    total = max(build.seconds, 0.001)
    rows = "\n".join(_row(build, row, total) for row in build.rows)
    ticks = "".join(
        f'<span style="left:{100 * number / _TICKS:.2f}%">{total * number / _TICKS:.2f} s</span>'
        for number in range(_TICKS + 1)
    )
    if build.waits:
        spans = "".join(_wait(wait, total) for wait in build.waits)
        rows += f'<div class="stage"><div class="name">outside of steps</div><div class="bars">{spans}</div></div>'
    legend = '<p class="dim"><span class="wait key"></span> waited for something that another was using</p>'
    axis = f'<h2>Time</h2>\n<div class="axis"><div class="ticks">{ticks}</div>\n{rows}</div>'
    return f"{axis}\n{legend}" if 'class="wait"' in rows else axis


def _row(build: Build, row: str | None, total: float) -> str:
    steps = [(number, step) for number, step in enumerate(build.steps) if step.row == row]
    first = steps[0][1]
    needs = f' <span class="dim">after {_text(", ".join(first.needs))}</span>' if first.needs else ""
    name = _text(build.row_names.get(row, row or ""))
    bars = "".join(_bar(number, step, total) for number, step in steps)
    bars += "".join(_wait(wait, total) for wait in _waits_of_row(build, first))
    bars += "".join(_wait(wait, total, number) for number, step in steps for wait in step.waits)
    return f'<div class="stage"><div class="name">{name}{needs}</div><div class="bars">{bars}</div></div>'


def _bar(number: int, step: Step, total: float) -> str:
    seconds = step.seconds if step.seconds is not None else total - step.began
    left, width = 100 * step.began / total, max(100 * seconds / total, 0.3)
    about = _text(f"{_first_line(step)} ({seconds:.2f} s, {_word(step)})")
    place = f"left:{left:.3f}%;width:{min(width, 100 - left):.3f}%"
    return f'<a class="bar {_kind(step)}" style="{place}" href="#s{number}" title="{about}"></a>'


def _waits_of_row(build: Build, first: Step) -> Iterator[Wait]:
    """The wait of a stage for other stages before its first step, if there was one."""
    ends = [one.began + one.seconds for one in build.steps if one.row in first.needs and one.seconds is not None]
    if ends and max(ends) <= first.began + _SLACK:
        yield Wait(0.0, max(ends), f"the end of {', '.join(first.needs)}")


def _wait(wait: Wait, total: float, step: int | None = None) -> str:
    """The mark of a wait on the axis, which leads to the step that waited."""
    left, width = 100 * wait.began / total, 100 * wait.seconds / total
    place = f"left:{left:.3f}%;width:{min(max(width, 0.3), 100 - left):.3f}%"
    tag, link = ("span", "") if step is None else ("a", f' href="#s{step}" tabindex="-1"')
    return f'<{tag} class="wait"{link} style="{place}" title="{_text(_waited(wait))}"></{tag}>'


def _waited(wait: Wait) -> str:
    return f"waited {wait.seconds:.2f} s for {wait.text}"


def _steps(build: Build) -> str:
    rows = "\n".join(_step(number, step) for number, step in enumerate(build.steps))
    return f"<h2>{build.noun.capitalize()}</h2>\n<div id=steps>{rows}</div>"


def _step(number: int, step: Step) -> str:
    cost = "" if step.seconds is None else f"{step.seconds:.2f} s"
    size = f"{_size(step.size)}" if step.size else ""
    head = (
        f'<span class="tag {_kind(step)}">{_word(step)}</span><span class="dim step">{_text(step.name)}</span>'
        f"<code>{_text(_first_line(step))}</code>"
        f'<span class="number">{size}</span><span class="number">{cost}</span>'
    )
    return f'<details id="s{number}"><summary>{head}</summary>{"".join(_details(step))}</details>'


def _details(step: Step) -> Iterator[str]:
    if step.place is not None:
        yield f'<p class="dim">{_text(step.place)}</p>'
    if _first_line(step) != step.text:
        yield f"<pre>{_text(step.text)}</pre>"
    for wait in step.waits:
        yield f'<p><span class="wait key"></span> {_text(_waited(wait))}</p>'
    if step.reason is not None:
        yield f"<p>Done again: {_text(step.reason)}</p>"
    if step.failure is not None:
        yield f'<p class="bad">{_text(step.failure)}</p>'
    if step.digest is not None:
        yield f'<p class="dim">layer {_text(step.digest)}</p>'
    for fact in step.facts:
        yield f'<p class="dim">{_text(fact)}</p>'
    if step.lost:
        yield f'<p class="dim">{step.lost} bytes of output before this are not kept</p>'
    if step.output:
        yield f"<pre>{_text(step.output.decode('utf-8', 'replace'))}</pre>"


def _layers(build: Build) -> str:
    """The layers of the images, from the base up: what images share is told once, and each fork is indented."""
    images = [image for image in build.images if image.layers]
    if not images:
        return ""
    largest = max(layer.size for image in images for layer in image.layers) or 1
    rows = "\n".join(_fork(node) if node.layer is None else _layer(node.layer, largest) for node in tree_of(images))
    heading = "Layers, from the base up"
    if len(images) == 1:
        heading = f"{heading}: {_size(_total(images[0]))} as they are pushed"
    return f"<h2>{heading}</h2>\n<div id=layers>{rows}</div>"


def _total(image: ImageLayers) -> int:
    return sum(layer.size for layer in image.layers)


def _fork(node: Row) -> str:
    """The HTML of a fork: the begin or end of a branch, or the image that the layers before it make up."""
    if node.image is None:
        return "<div class=branch>" if node.begins else "</div>"
    about = f"{_text(node.image.name)}, {_size(_total(node.image))} as it is pushed"
    return f'<p class="image">{about}</p>' if node.image.name else ""


def _layer(layer: LayerFiles, largest: int) -> str:
    head = (
        f'<span class="weight"><i style="width:{100 * layer.size / largest:.1f}%"></i></span>'
        f'<span class="number">{_size(layer.size)}</span><code>{_text(layer.created_by)}</code>'
    )
    about = f'<p class="dim">{_text(layer.digest)}</p>{_files(layer)}'
    return f"<details><summary>{head}</summary>{about}</details>"


def _files(layer: LayerFiles) -> str:
    """The biggest files of a layer in their directories. A directory is told if several of the files are in it."""
    if not layer.files:
        return "<p class=dim>no file with content</p>"
    rows = [f"<tr><th>bytes</th><th>files</th><th>its {len(layer.files)} biggest files</th></tr>"]
    for depth, path, weight in nested(layer.files, layer.directories):
        is_file = weight is not None and weight in layer.files
        size = "" if weight is None else _size(weight.bytes)
        count = "" if weight is None or is_file else str(weight.files)
        name = _text(path) if is_file else f"<b>{_text(path)}</b>"
        indent = f' style="padding-left:{0.8 + 1.2 * depth:.1f}rem"'
        rows.append(f'<tr><td class="number">{size}</td><td class="number">{count}</td><td{indent}>{name}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _warnings(build: Build) -> str:
    if not build.warnings:
        return ""
    said = dict.fromkeys(_warning(warning) for warning in build.warnings if not warning.note)
    return "<h2>Warnings</h2>\n<ul>" + "".join(f"<li>{_text(text)}</li>" for text in said) + "</ul>"


def _warning(warning: Warned) -> str:
    place = f"{warning.file}:{warning.line}: " if warning.file else ""
    return f"{place}{warning.message}" + (f" ({warning.hint})" if warning.hint else "")


def _kind(step: Step) -> str:
    if step.failure is not None:
        return "failed"
    return "cached" if step.cached else "done"


def _word(step: Step) -> str:
    if step.failure is not None:
        return "failed"
    if step.seconds is None:
        return "unfinished"
    return "remembered" if step.cached else "done"


def _first_line(step: Step) -> str:
    first, feed, _ = step.text.partition("\n")
    return f"{first} …" if feed else first


def _text(text: str) -> str:
    """Text of others, in which nothing acts: no tag, and no control character of a terminal that copies it."""
    return escape(displayed(text))


def _size(count: int | None) -> str:
    return human_size(count or 0)


_BEFORE_TITLE = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
_BEFORE_BODY = """</title>
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>
:root { color-scheme: light dark; --back: #fff; --text: #1a1c1f; --dim: #68707a; --line: #d9dde2; --done: #2f6fde;
  --cached: #8fa3b8; --bad: #c62f2f; --good: #23803c; --soft: #f4f6f8;
  --wait: #d98a00 }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --text: #e6e8eb; --dim: #929aa4; --line: #33383f;
  --done: #6b9cf5; --cached: #56657a; --bad: #ef6a6a; --good: #5fc27a; --soft: #1d2024; --wait: #e0a83c } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem }
.good { color: var(--good) } .bad { color: var(--bad) } .dim { color: var(--dim) }
.facts { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; list-style: none; padding: 0; color: var(--dim) }
code, pre { font: 13px/1.45 ui-monospace, monospace } pre { overflow: auto; max-height: 30rem; padding: .7rem;
  background: var(--soft); white-space: pre-wrap }
.axis { border-left: 1px solid var(--line) } .ticks { position: relative; height: 1.4rem; margin-left: 14rem;
  font-size: 12px; color: var(--dim) }
.ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap }
.ticks span:last-child { transform: translateX(-100%) }
.stage { display: flex; align-items: center; border-top: 1px solid var(--line); min-height: 1.9rem }
.stage .name { width: 14rem; flex: none; font-size: 13px; padding-left: .4rem }
.bars { position: relative; flex: 1; height: 1.2rem } .bar { position: absolute; height: 100%; border-radius: 2px }
.bar:focus, summary:focus { outline: 2px solid var(--done) } .bar.done { background: var(--done) }
.wait { position: absolute; height: 100%; border-radius: 2px; background:
  repeating-linear-gradient(45deg, var(--wait) 0 3px, var(--back) 3px 6px) }
.wait.key { position: static; display: inline-block; width: 1.6rem; height: .7rem }
.bar.cached { background: var(--cached) } .bar.failed { background: var(--bad) }
details { border-top: 1px solid var(--line) } details > :not(summary) { margin-left: 1.2rem }
summary { display: flex; gap: .8rem; align-items: baseline; padding: .3rem; cursor: pointer }
summary code { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
details[open] summary code { white-space: normal }
.tag { font-size: 12px; width: 6.5rem; flex: none } .tag.done { color: var(--done) } .tag.failed { color: var(--bad) }
.tag.cached, .number { color: var(--dim) }
.step { font-size: 13px; min-width: 3.2rem }
.number { font-size: 13px; white-space: nowrap; font-variant-numeric: tabular-nums; text-align: right; min-width: 5rem }
.weight { width: 8rem; flex: none; background: var(--soft); height: .7rem }
.weight i { display: block; height: 100%; background: var(--done) }
.branch { margin-left: 1.6rem; border-left: 2px solid var(--line); padding-left: .6rem; margin-bottom: .5rem }
.image { margin: .2rem; font-weight: 600 }
table { border-collapse: collapse; font: 13px ui-monospace, monospace } td, th { padding: 0 .8rem; text-align: left }
</style></head><body>
"""
_END = """
<p class="dim">Keys: j and k go to the next and the previous row, Enter opens it, o opens or closes all.</p>
<script>
const rows = [...document.querySelectorAll("#steps summary, #layers summary")];
let at = -1;
function go(to) { at = Math.max(0, Math.min(rows.length - 1, to)); rows[at].focus(); }
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "j") go(at + 1);
  else if (event.key === "k") go(at - 1);
  else if (event.key === "o") {
    const open = rows.some(row => !row.parentNode.open);
    rows.forEach(row => row.parentNode.open = open);
  }
});
rows.forEach((row, number) => row.addEventListener("focus", () => at = number));
document.querySelectorAll(".bars a").forEach(bar => bar.addEventListener("click", () => {
  const step = document.getElementById(bar.hash.slice(1)); step.open = true; at = rows.indexOf(step.firstChild); }));
</script></body></html>
"""
