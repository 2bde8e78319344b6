"""Writes the pages of docs/reference/ from the code they describe. With ``--check`` it only says which are stale.

.venv/bin/python scripts/reference.py           write
.venv/bin/python scripts/reference.py --check   exit 1 if a page is not what the code says
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from predis import errors, events, settings
from predis.app.control import openapi
from predis.cli import main as cli
from predis.metrics import TABLE as METRICS
from predis.rollout.states import STATES, TRANSITIONS, WISHES

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py from the code; `make docs` writes it anew. -->"


def table(*columns: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, without the columns in which no row says anything."""
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in rows]
    shown = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    lines = [[columns[i] for i in shown], ["---"] * len(shown), *([row[i] for i in shown] for row in cells)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spaced(parts: Iterable[str]) -> str:
    """Paragraphs or sections one below the other; empty ones left out."""
    return "\n\n".join(filter(None, parts))


def code(text: object) -> str:
    return f"`{text}`" if text not in ("", None) else ""


def first_paragraph(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def settings_page() -> str:
    rows = (
        (
            code(row.name),
            code(row.type),
            code(row.default),
            row.unit,
            row.help,
            code(row.environment),
            code(row.flag),
        )
        for row in settings.describe()
    )
    return f"""# Settings

A setting has one name. It is read, later over earlier, from its default, from `{settings.CONFIG_FILE}` in the working folder (or
the file that `{settings.ENV_PREFIX}CONFIG` names), from the environment, and from the command line.

{table("name", "type", "default", "unit", "what it is", "environment", "flag", rows=rows)}"""


def errors_page() -> str:
    tree = inspect.cleandoc(str(errors.__doc__))
    meaning = dict(re.findall(r"[├└]── (\w+)[ ]*(.*)", tree))
    classes = {cls.__name__: cls for cls in errors.all_errors().values()}
    rows = (
        (
            code(classes[name].code),
            name,
            classes[name].__bases__[0].__name__,
            meaning.get(name, "the root of the tree"),
        )
        for name in ("PredisError", *meaning)
    )
    return f"""# Errors

Every error has a stable `code`, for programs, and a message of one line, for people. Whoever handles a class handles those
below it.

```text
{inspect.cleandoc(tree[tree.index("    PredisError") : tree.index("An error knows")])}
```

{table("code", "class", "parent", "meaning", rows=rows)}"""


def events_page() -> str:
    sections = [
        f"## {kind.__name__}\n\n{first_paragraph(kind)}\n\n"
        + table("field", "type", rows=((code(f.name), code(f.type)) for f in dataclasses.fields(kind)))
        for kind in events.all_events()
    ]
    return f"""# Events

News travels upward as events: frozen dataclasses, published on a bus and subscribed in the composition root. Moments are
nanoseconds since 1970-01-01 UTC.

{spaced(sections)}"""


def metrics_page() -> str:
    rows = (
        (
            code(metric.name),
            metric.kind,
            metric.unit,
            ", ".join(map(code, filter(None, (*metric.labels, metric.by)))),
            metric.help,
        )
        for metric in METRICS.values()
    )
    buckets = {
        metric.name: ", ".join(f"{bound:g}" for bound in metric.buckets)
        for metric in METRICS.values()
        if metric.buckets
    }
    return f"""# Metrics

What `/metrics` shows, on the port of any serving worker and on the control port, in Prometheus' text format 0.0.4: the numbers of
all processes of the home folder. Counters and histograms are added up over processes; metrics with the label `worker` or `process`
have a series for each. How to have them scraped: [Observe](../how-to/observe.md).

{table("name", "kind", "unit", "labels", "what it is", rows=rows)}

Upper bounds of the buckets:

{table("histogram", "bounds", rows=((code(name), bounds) for name, bounds in buckets.items()))}"""


def rollout_states_page() -> str:
    arrows = "\n".join(f"    {source} --> {target}" for source, target in TRANSITIONS)
    final = STATES.keys() - {source for source, _ in TRANSITIONS}
    ends = "\n".join(f"    {state} --> [*]" for state in STATES if state in final)
    moves = ((code(source), code(target), why) for (source, target), why in TRANSITIONS.items())
    wishes = (
        (code(wish), ", ".join(code(state) for state in STATES if state in granted))
        for wish, granted in WISHES.items()
    )
    return f"""# States of a rollout

{table("state", "meaning", rows=((code(state), text) for state, text in STATES.items()))}

```mermaid
stateDiagram-v2
    [*] --> {next(iter(STATES))}
{arrows}
{ends}
```

No move exists but these:

{table("from", "to", "when", rows=moves)}

What people may ask for, and in which states:

{table("wish", "state", rows=wishes)}"""


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            if not inner.hidden:
                yield from commands(inner, f"{path} {name}")


def option_form(option: click.Option) -> str:
    form = ", ".join((*option.opts, *option.secondary_opts))
    if option.is_flag or option.count:
        return form
    values = (
        "|".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else option.type.name
    )
    return f"{form} {option.metavar or (values if '|' in values else values.upper())}"


def option_help(option: click.Option) -> str:
    notes = [option.help or ""]
    if option.required:
        notes.append("Required.")
    if option.show_default and not callable(option.default) and option.default not in (None, "", False):
        notes.append(f"Default: {option.default}.")
    if option.envvar and str(option.envvar) not in notes[0]:
        notes.append(f"Environment: `{option.envvar}`.")
    return " ".join(notes)


def command_help(command: click.Command) -> str:
    """Its help; a paragraph that click would print as it stands becomes a block of code."""
    as_it_stands = "\b\n"
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return spaced(
        f"```text\n{text.removeprefix(as_it_stands)}\n```" if text.startswith(as_it_stands) else text
        for text in paragraphs
    )


def usage(path: str, command: click.Command) -> str:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    pieces = [path, "[OPTIONS]" if any(isinstance(p, click.Option) for p in command.params) else ""]
    for argument in arguments:
        name = str(argument.name).upper() + ("..." if argument.nargs == -1 else "")
        pieces.append(name if argument.required else f"[{name}]")
    if isinstance(command, click.Group):
        pieces.append("COMMAND")
    return " ".join(filter(None, pieces))


def command_section(path: str, command: click.Command) -> str:
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    parts = [f"## {path}", command_help(command), f"```text\n{usage(path, command)}\n```"]
    if options:
        parts.append(
            table("option", "what it does", rows=((code(option_form(o)), option_help(o)) for o in options))
        )
    return spaced(parts)


def cli_page() -> str:
    sections = spaced(command_section(path, command) for path, command in commands(cli, "predis"))
    return f"""# Commands

Every command explains itself with `--help`.

{sections}"""


def schema_type(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words: ``array of string or null``."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if choices := schema.get("anyOf"):
        return " or ".join(schema_type(choice) for choice in choices)
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {schema_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def operation_section(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (code(p["name"]), p["in"], schema_type(p["schema"]), "yes" if p.get("required") else "no")
        for p in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answer = min(operation["responses"])
    parts = [f"### {method.upper()} {path}", operation.get("description", "")]
    if parameters:
        parts.append(table("parameter", "in", "type", "required", rows=parameters))
    if body:
        name = schema_type(body)
        parts.append(f"Body: [{name}](#{name.lower()})." if "$ref" in body else f"Body: {name}.")
    parts.append(f"Answers {answer}.")
    return spaced(parts)


def schema_section(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = (
        (code(field), schema_type(of), "yes" if field in required else "no", of.get("description", ""))
        for field, of in schema.get("properties", {}).items()
    )
    text = " ".join(schema.get("description", "").partition("\n\n")[0].split())
    return f"### {name}\n\n{text}\n\n{table('field', 'type', 'required', 'what it is', rows=rows)}"


def http_api_page() -> str:
    document = openapi()
    tags: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0].capitalize()
            tags.setdefault(tag, []).append(operation_section(method, path, operation))
    bodies = [
        schema_section(name, schema)
        for name, schema in document["components"]["schemas"].items()
        if not name.endswith("ValidationError")
    ]
    sections = [f"## {tag}\n\n" + spaced(texts) for tag, texts in tags.items()]
    return f"""# The control API

JSON over HTTP, on the control role's port. A running one shows the same as OpenAPI at `/api/v1/openapi.json`. Errors are
`{{"error": message, "code": code}}` with a code from [the list of errors](errors.md).

{spaced(sections)}

## Bodies

{spaced(bodies)}"""


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "http-api.md": http_api_page,
    "metrics.md": metrics_page,
    "rollout-states.md": rollout_states_page,
    "settings.md": settings_page,
}


def render() -> dict[Path, str]:
    """What every page should hold."""
    pages = {FOLDER / name: page() for name, page in PAGES.items()}
    return {file: re.sub(r"\n{3,}", "\n\n", f"{NOTE}\n{text}\n") for file, text in pages.items()}


def stale(pages: dict[Path, str]) -> list[Path]:
    return [file for file, text in pages.items() if not file.is_file() or file.read_text("utf-8") != text]


def main(arguments: list[str]) -> int:
    changed = stale(pages := render())
    if arguments == ["--check"]:
        for file in changed:
            print(f"{file.relative_to(FOLDER.parents[1])} is stale; `make docs` writes it anew")
        return 1 if changed else 0
    for file in changed:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pages[file], "utf-8")
        print(f"wrote {file.relative_to(FOLDER.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
