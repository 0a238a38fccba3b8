"""Writes ``docs/reference/`` from the code, so that the manual is never behind.

In: the installed package: docstrings of its public names, its command line, its errors, its settings. Out: one page of
Markdown for each. ``tests/docs/test_reference.py`` fails when the committed pages differ from what this writes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
GENERATED = "<!-- Written by scripts/generate_reference.py; `make docs` writes it anew. -->"
SECTION = re.compile(r"(?P<title>[A-Z][A-Za-z ]+)\n(?P<line>-{3,})\n")


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())
        sys.stdout.write(f"docs/reference/{name}\n")


def python_page() -> str:
    """The names in ``tinydancer.__all__``, in the order of the alphabet, with signature and docstring."""
    package = importlib.import_module("tinydancer")
    parts = [
        heading("Python", "Every public name: `from tinydancer import ...`. Errors have [their own page](errors.md).")
    ]
    base = package.TinyDancerError
    for name in sorted(package.__all__, key=str.lower):
        value = getattr(package, name)
        if inspect.isclass(value) and issubclass(value, base):
            continue
        parts.append(f"## {name}\n")
        if inspect.isclass(value):
            parts.extend(class_parts(name, value))
        elif inspect.isroutine(value):
            parts.append(f"```text\n{signature(name, value)}\n```\n")
            parts.append(markdown(inspect.getdoc(value) or ""))
        else:
            parts.append(f"`{value!r}`\n")
    return joined(parts)


def class_parts(name: str, value: type) -> Iterator[str]:
    """Signature, docstring, and the public methods and properties that the class itself or a base of ours defines."""
    if not inspect.isabstract(value) and not getattr(value, "_is_protocol", False):
        yield f"```text\n{signature(name, value)}\n```\n"
    yield markdown(inspect.getdoc(value) or "")
    for member_name, member in sorted(own_members(value).items()):
        documented = inspect.getdoc(member)
        if not documented:
            continue
        if isinstance(member, property):
            yield f"### {name}.{member_name}\n"
        else:
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            yield f"### {name}.{member_name}()\n"
            yield f"```text\n{signature(member_name, function)}\n```\n"
        yield markdown(documented)


def own_members(value: type) -> dict[str, Any]:
    """Public methods and properties by name, inherited ones of this package included."""
    members: dict[str, Any] = {}
    for base in reversed(value.__mro__):
        if base.__module__.split(".")[0] == "tinydancer":
            members |= {
                name: member
                for name, member in vars(base).items()
                if not name.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
            }
    return members


def signature(name: str, value: Callable[..., Any]) -> str:
    """The call as one would write it, one argument per line where it is long."""
    found = inspect.signature(value)
    arguments: list[str] = []
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(one.startswith("*") for one in arguments):
            arguments.append("*")
        arguments.append(argument(parameter))
    returns = (
        "" if found.return_annotation in (found.empty, None, "None") else f" -> {annotation(found.return_annotation)}"
    )
    on_one_line = f"{name}({', '.join(arguments)}){returns}"
    if len(on_one_line) <= 100:
        return on_one_line
    return f"{name}(\n" + "".join(f"    {one},\n" for one in arguments) + f"){returns}"


def argument(parameter: inspect.Parameter) -> str:
    """One argument with its type and default; a default made at each call is shown as ``...``."""
    shown = parameter.name
    if parameter.kind is parameter.VAR_POSITIONAL:
        shown = f"*{shown}"
    elif parameter.kind is parameter.VAR_KEYWORD:
        shown = f"**{shown}"
    if parameter.annotation is not parameter.empty:
        shown += f": {annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        shown += f" = {'...' if default.startswith('<') else default}"
    return shown


def annotation(found: Any) -> str:
    """A type as it stands in the source."""
    return found.strip("'\"") if isinstance(found, str) else str(inspect.formatannotation(found))


def markdown(doc: str) -> str:
    """A NumPy docstring as Markdown: sections in bold, definitions as a list, sessions and literals as blocks."""
    first, *rest = SECTION.split(doc.strip() + "\n")
    parts = [prose(first)]
    for title, _, body in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        parts.append(f"**{title}**\n")
        parts.append(definitions(body) if title not in ("Notes", "Examples", "References") else prose(body))
    return "\n".join(part for part in parts if part.strip()) + "\n"


def definitions(body: str) -> str:
    """``name : type`` with its indented explanation, as one item of a list each."""
    items: list[list[str]] = []
    for line in body.strip("\n").splitlines():
        if line and not line[0].isspace():
            items.append([line])
        elif items:
            items[-1].append(line)
    shown = []
    for term, *text in items:
        explanation = " ".join(" ".join(text).split())
        shown.append(f"- `{term}`" + (f": {plain_code(explanation)}" if explanation else ""))
    return "\n".join(shown) + "\n"


def prose(text: str) -> str:
    """Paragraphs as they are, with what stands indented under ``::`` or after ``>>>`` fenced."""
    shown = []
    literal = False
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.lstrip().startswith(">>>"):
            shown.append(f"```pycon\n{textwrap.dedent(paragraph)}\n```")
        elif literal and paragraph.startswith(" "):
            shown.append(f"```text\n{textwrap.dedent(paragraph)}\n```")
        else:
            literal = paragraph.rstrip().endswith("::")
            shown.append(plain_code(re.sub(r"::$", ":", paragraph.strip())))
    return "\n\n".join(part for part in shown if part not in ("", ":")) + "\n"


def plain_code(text: str) -> str:
    """Double backticks, which docstrings use, as Markdown's single ones."""
    return re.sub(r"``(.+?)``", r"`\1`", text)


def errors_page() -> str:
    """Every class of the error tree: indented by its depth, with what each door makes of it."""
    errors = importlib.import_module("tinydancer.errors")

    def rows(error: Any, depth: int) -> Iterator[str]:
        first = " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split())
        indent = "&nbsp;" * (4 * depth)
        numbers = f"`{error.code}` | `{error.sqlstate}` | {error.http_status}"
        yield f"| {indent}`{error.__name__}` | {numbers} | {plain_code(first)} |"
        for below in sorted(error.__subclasses__(), key=lambda one: one.__name__):
            if below.__module__ == errors.__name__:
                yield from rows(below, depth + 1)

    return joined(
        [
            heading(
                "Errors",
                "Everything Tiny Dancer raises on purpose. Catching a class catches what stands indented below it.\n"
                "`code` is for programs and does not change; messages may.",
            ),
            "| class | `code` | SQLSTATE | HTTP status | when |\n| --- | --- | --- | --- | --- |",
            *rows(errors.TinyDancerError, 0),
        ]
    )


def cli_page() -> str:
    """Every command with its arguments and options, as Typer itself knows them."""
    import typer

    module = importlib.import_module("tinydancer.cli")
    app = next(value for value in vars(module).values() if isinstance(value, typer.Typer))
    command = typer.main.get_command(app)
    intro = "Every command of `tinydancer`. `tinydancer COMMAND --help` shows the same in a terminal."
    return joined([heading("Command line", intro), *command_parts(command, "tinydancer", top=True)])


def command_parts(command: Any, path: str, *, top: bool = False) -> Iterator[str]:
    """One command's usage, help and parameters, then those below it."""
    below = getattr(command, "commands", {})
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    usage = [path, *(["[OPTIONS]"] if options else []), *(["COMMAND ..."] if below else [])]
    usage += [(p.metavar or p.name.upper()) if p.required else f"[{p.metavar or p.name.upper()}]" for p in arguments]
    yield f"## {path}\n"
    yield f"```text\n{' '.join(usage)}\n```\n"
    yield plain_help(command.help or "") + "\n"
    if arguments or options:
        yield "| | | default |\n| --- | --- | --- |"
        for param in [*arguments, *options]:
            names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
            if param in arguments:
                names = f"`{param.metavar or param.name.upper()}`"
            explained = plain_help(getattr(param, "help", None) or "").replace("\n", " ").replace("|", "\\|")
            yield f"| {names} | {explained} | {default_of(param)} |"
        yield ""
    for name in sorted(below):
        if not below[name].hidden:
            yield from command_parts(below[name], f"{path} {name}")


def default_of(param: Any) -> str:
    """The default as a reader would type it."""
    if param.required:
        return "required"
    value = param.default
    shown = getattr(param, "show_default", None)
    if isinstance(shown, str):
        return shown
    if value is None or value is False or value in ((), []) or callable(value):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def plain_help(text: str) -> str:
    """Help without Rich's markup and without Click's marks for the terminal."""
    text = re.sub(r"\[/?(?:bold|dim|italic|cyan|green|red|yellow|magenta|blue|white)[^\]]*\]", "", text)
    return plain_code(inspect.cleandoc(text.replace("\b", "").split("\f")[0]))


def config_page() -> str:
    """The keys of the settings file, section by section, from the dataclasses that read it."""
    settings = importlib.import_module("tinydancer.config").Settings
    intro = "The keys of `tinydancer.yaml`. `tinydancer init` writes a commented one to start from."
    return joined([heading("Settings", intro), *section_parts("", settings)])


def section_parts(section: str, settings: Any) -> Iterator[str]:
    """One section's keys as a table, then the sections inside it."""
    doc = inspect.getdoc(settings) or ""
    explained = parameters_of(doc)
    inside: list[tuple[str, Any]] = []
    if section:
        yield f"## {section}\n"
        yield prose(SECTION.split(doc + "\n")[0])
    yield "| key | type | default | |\n| --- | --- | --- | --- |"
    for field in dataclasses.fields(settings):
        key = f"{section}.{field.name}" if section else field.name
        factory: Any = field.default_factory
        if isinstance(factory, type) and dataclasses.is_dataclass(factory):
            inside.append((key, factory))
        else:
            kind = str(field.type).replace("|", "\\|")
            yield f"| `{key}` | `{kind}` | {field_default(field)} | {explained.get(field.name, '')} |"
    yield ""
    for key, below in inside:
        yield from section_parts(key, below)


def field_default(field: dataclasses.Field[Any]) -> str:
    """The default of one setting, made when it is made by a factory."""
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "required"


def parameters_of(doc: str) -> dict[str, str]:
    """Name to explanation, from the Parameters section of a docstring; several names may share one."""
    _, *rest = SECTION.split(doc + "\n")
    found = {}
    for title, _, body in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        if title in ("Parameters", "Attributes"):
            for item in definitions(body).splitlines():
                terms, _, explanation = item.removeprefix("- `").partition("`: ")
                for name in terms.split(" : ")[0].split(","):
                    found[name.strip()] = explanation.replace("|", "\\|")
    return found


def heading(title: str, intro: str) -> str:
    """How every page begins."""
    return f"# {title}\n\n{GENERATED}\n\n{intro}\n"


def joined(parts: list[str]) -> str:
    """One page, without trailing blanks or doubled empty lines."""
    text = re.sub(r"[ \t]+$", "", "\n".join(parts), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "config.md": config_page,
    "errors.md": errors_page,
    "python.md": python_page,
}

if __name__ == "__main__":
    main()
