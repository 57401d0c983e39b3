"""Manual pages in roff, of the same values as `--help`: builda(1), and one for each verb.

tools/manpages.py writes them when a wheel is built.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping

import click

from builda.cli.core.commands import Group, GroupOfVerbs, Verbs, rows_of
from builda.cli.core.versions import version_line
from builda.cli.guide import pages
from builda.cli.verbs import ALIASES, GROUPS, VERBS

_OPTION = re.compile(r"(?<![\w-])(--?[A-Za-z][\w-]*)")


def manual(group: Group) -> Mapping[str, str]:
    """Every page by its file name; an alias is a page that refers to its verb's."""
    context = click.Context(group, info_name="builda", **group.context_settings)
    found = {"builda.1": _of_builda(group, context)}
    for name in VERBS:
        found[f"builda-{name}.1"] = _of_verb(group.get_command(context, name), name, context)
    for name, members in GROUPS.items():
        inner = GroupOfVerbs(name)
        within = click.Context(inner, info_name=name, parent=context)
        found[f"builda-{name}.1"] = _of_group(inner, within)
        for member in members.verbs:
            command = inner.get_command(within, member)
            found[f"builda-{name}-{member}.1"] = _of_verb(command, f"{name} {member}", within)
    return {**found, **{f"builda-{alias}.1": f".so man1/builda-{name}.1\n" for alias, name in ALIASES.items()}}


def header(title: str, section: int) -> str:
    """The first lines of a page, whose words are not hyphenated."""
    return f'\'\\" -*- coding: UTF-8 -*-\n.TH {title.upper()} {section} "" "{version_line()}" "builda"\n.nh\n.ad l\n'


def escaped(text: str) -> str:
    """Text as roff shows it: hyphens that can be copied, and no line that is taken for a request."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in plain.split("\n"))


def bold(text: str) -> str:
    """Text in bold."""
    return f"\\fB{escaped(text)}\\fR"


def paragraphs(text: str) -> str:
    """Paragraphs that blank lines part; options in them are bold."""
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(text))]
    return "\n.PP\n".join(_inline(part) for part in parts) + "\n"


def listed(rows: Iterable[tuple[str, str]]) -> str:
    """Names that are roff already, each with what it means."""
    return "".join(f".TP\n{name}\n{_inline(text)}\n" for name, text in rows)


def literal(lines: Iterable[str]) -> str:
    """Lines as they are."""
    return ".PP\n.RS 4\n.nf\n" + "\n".join(escaped(line) for line in lines) + "\n.fi\n.RE\n"


def _inline(text: str) -> str:
    return re.sub(r"(?<![\w\\])\\-(?:\\-)?[A-Za-z](?:[\w]|\\-)*", lambda match: f"\\fB{match[0]}\\fR", escaped(text))


def _of_builda(group: Group, context: click.Context) -> str:
    parts = [header("builda", 1), ".SH NAME\n", "builda \\- build container images without a daemon\n"]
    parts += [".SH SYNOPSIS\n", f"{bold('builda')} [\\fIOPTIONS\\fR] \\fIVERB\\fR [\\fIARGUMENTS\\fR]\n"]
    parts += [".SH DESCRIPTION\n", paragraphs(group.help or ""), ".PP\n", paragraphs(pages.SWITCHES)]
    parts += [".SH VERBS\n", listed(_verbs(group, context))]
    parts += [".SH OPTIONS\n", paragraphs("These may stand before the verb and behind it.")]
    parts += [listed(_records(group.get_params(context), context))]
    parts += _surroundings()
    parts += [".SH SEE ALSO\n", ", ".join(f"{bold(f'builda-{name}')}(1)" for name in sorted([*VERBS, *GROUPS])), ",\n"]
    return "".join([*parts, f"{bold('Containerfile.in')}(5)\n"])


def _of_group(group: GroupOfVerbs, context: click.Context) -> str:
    name = group.called
    parts = [header(f"builda-{name}", 1), ".SH NAME\n"]
    short = group.get_short_help_str(1000).rstrip(".")
    parts += [f"builda\\-{escaped(name)} \\- {escaped(short[:1].lower() + short[1:])}\n"]
    parts += [".SH SYNOPSIS\n", f"{bold(f'builda {name}')} \\fIVERB\\fR [\\fIARGUMENTS\\fR]\n"]
    parts += [".SH DESCRIPTION\n", paragraphs(group.help or ""), ".SH VERBS\n", listed(_verbs(group, context))]
    members = [f"{bold(f'builda-{name}-{member}')}(1)" for member in group.list_commands(context)]
    return "".join([*parts, ".SH SEE ALSO\n", ", ".join([*members, f"{bold('builda')}(1)"]), "\n"])


def _of_verb(command: click.Command, called: str, parent: click.Context) -> str:
    name = command.name or ""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    usage = " ".join(f"\\fI{escaped(piece)}\\fR" for piece in command.collect_usage_pieces(context))
    parts = [header(f"builda-{name}", 1), ".SH NAME\n"]
    short = command.get_short_help_str(1000).rstrip(".")
    parts += [f"builda\\-{escaped(name)} \\- {escaped(short[:1].lower() + short[1:])}\n"]
    parts += [".SH SYNOPSIS\n", f"{bold(f'builda {called}')} {usage}\n"]
    parts += [f".PP\n{bold(f'builda {alias}')} is the same.\n" for alias, meant in ALIASES.items() if meant == name]
    parts += [".SH DESCRIPTION\n", paragraphs(command.help or ""), ".SH OPTIONS\n"]
    groups = pages.sections(name, command.get_params(context))
    for title, options in groups:
        parts += [f".SS {escaped(title)}\n"] if len(groups) > 1 else []
        parts += [listed(_records(options, context))]
    if rows := [(bold(row.flags[0]), row.refusal) for row in rows_of(command) if row.refusal]:
        parts += [".SH OPTIONS THAT ARE REFUSED\n", "Buildah or docker have these.\n", listed(rows)]
    if examples := pages.examples(command):
        parts += [".SH EXAMPLES\n", literal(examples)]
    parts += _surroundings() if name in pages.PAGES else []
    return "".join([*parts, ".SH SEE ALSO\n", f"{bold('builda')}(1){_others(name)}\n"])


def _others(name: str) -> str:
    return f", {bold('Containerfile.in')}(5)" if name in ("build", "preprocess") else ""


def _verbs(group: Verbs, context: click.Context) -> Iterator[tuple[str, str]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        names = [name, *group.aliases_of(name)]
        yield ", ".join(map(bold, names)), command.get_short_help_str(1000)


def _records(params: Iterable[click.Parameter], context: click.Context) -> Iterator[tuple[str, str]]:
    for param in params:
        record = param.get_help_record(context)
        if record is not None:
            yield _OPTION.sub(lambda match: f"\\fB{match[1]}\\fR", record[0]).replace("-", "\\-"), record[1]


def _surroundings() -> list[str]:
    parts = []
    for title, rows in pages.TOPICS.values():
        parts += [f".SH {title.upper()}\n", listed((bold(name), text) for name, text in rows.items())]
    return parts
