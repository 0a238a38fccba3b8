"""``tinydancer classify`` and ``tinydancer classifiers``: what kind of request a text is, and classes of your own.

In: texts, files of labelled texts. Out: classes and capabilities as a table with bars, or JSON; a classifier.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.context import note, open_dancer, settings_of, state_of
from tinydancer.cli.inputs import STDIN, parse_json, read_bytes, read_text, request_source
from tinydancer.cli.options import examples
from tinydancer.errors import InvalidInputError, InvalidTextError, TinyDancerError
from tinydancer.policy.wording import plural

if TYPE_CHECKING:
    from tinydancer.model.classifier import RequestClassifier
    from tinydancer.model.classifier_training import ClassifierReport
    from tinydancer.service import TinyDancer

classifiers_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Train classes of requests of your own, and choose which classifier answers.",
    epilog=examples("tinydancer classifiers train labelled.csv --use support-desk", "tinydancer classifiers list"),
)
_LOOK = "Look"
_CHANGE = "Change"
_SHOWN_CHARS = 60
_CONFUSED_SHOWN = 2

_Answer = dict[str, Any]


def classify(
    ctx: typer.Context,
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="The request; several words are joined. - reads standard input."),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Read the request, or many with --batch, there.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", "-k", metavar="N", min=1, help="How many classes to show; all without it.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="A classifier's file, or shipped, instead of the store's."),
    ] = None,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch", help='One request per line, or JSON lines with the key "request"; one answer per request.'
        ),
    ] = False,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """See what kind of request a text is, and which capabilities its answer takes.

    The classifier chosen with [bold]tinydancer classifiers use[/bold] answers, else the package's own.
    """
    source = request_source(text, file)
    with _open(ctx) as dancer:
        answer = _answering(dancer, model)
        if batch:
            _write_lines(dancer, answer, source, top, as_json=as_json, quiet=state_of(ctx).quiet)
            return
        # A file ends with a line feed that is no part of what was asked.
        found = answer(source.rstrip("\r\n"))
    if as_json:
        output.write_json(_cut(found, top))
        return
    width = 24
    output.write_table(
        ("class", "probability", ""),
        [(name, f"{p:.3f}", output.meter(p, width)) for name, p in _cut(found, top)["classifications"]],
        numbers=("probability",),
    )
    needs = ", ".join(f"{name} ({p:.2f})" for name, p in found["capabilities"])
    typer.echo()
    typer.echo(output.printable(f"Its answer takes: {needs or 'nothing special'}."))


@contextmanager
def _open(ctx: typer.Context, *, make: bool = False) -> Iterator[TinyDancer]:
    """As `open_dancer`, but without a note on a store that does not exist: classes need no agents."""
    from tinydancer.service import TinyDancer
    from tinydancer.store.opening import is_address

    settings = settings_of(state_of(ctx))
    if make or is_address(settings.store) or Path(settings.store).exists():
        with open_dancer(ctx, make=make, settings=settings) as dancer:
            yield dancer
    else:
        with TinyDancer(None, settings=settings) as dancer:
            yield dancer


def _answering(dancer: TinyDancer, model: str | None) -> Callable[[str], _Answer]:
    from tinydancer.classification import RequestClassification
    from tinydancer.model.classifier import RequestClassifier
    from tinydancer.needs import classifier_of
    from tinydancer.store.base import SHIPPED_MODEL

    if model is None:
        return RequestClassification(dancer).classify
    if model == SHIPPED_MODEL:
        chosen = RequestClassifier.load(space=dancer.space)
    else:
        chosen = classifier_of(read_bytes(model)[0], dancer.space, f"The file {model}")

    def answer(request: str) -> _Answer:
        classes, capabilities = chosen.answer(dancer.embed(request), request)
        return {
            "classifications": [list(pair) for pair in classes], "top_category": classes[0][0],
            "confidence": classes[0][1], "capabilities": [list(pair) for pair in capabilities], "model": chosen.name,
        }  # fmt: skip

    return answer


def _cut(found: _Answer, top: int | None) -> _Answer:
    return found if top is None else {**found, "classifications": found["classifications"][:top]}


def _write_lines(
    dancer: TinyDancer, answer: Callable[[str], _Answer], source: str, top: int | None, *, as_json: bool, quiet: bool
) -> None:
    """One answer for each line, in the order of the lines; a line that is no request stops before the first answer."""
    from tinydancer import validation as check

    requests = list(_requests(source))
    for number, request in requests:
        try:
            check.request_text(request, max_chars=dancer.settings.max_request_chars)
        except TinyDancerError as error:
            raise InvalidTextError(f"Line {number}: {error.message}", hint=error.hint) from None
    if not requests:
        raise InvalidInputError("There is no request; expected one per line.")
    rows = []
    with output.progress(len(requests), "classifying", quiet=quiet or as_json) as advance:
        for number, request in requests:
            found = answer(request)
            if as_json:
                typer.echo(output.json_text({"line": number, **_cut(found, top)}, sys.stdout))
            else:
                named = ", ".join(name for name, _ in found["capabilities"])
                shown = request if len(request) <= _SHOWN_CHARS else f"{request[: _SHOWN_CHARS - 1]}…"
                rows.append((str(number), found["top_category"], f"{found['confidence']:.2f}", named, shown))
            advance(1)
    if not as_json:
        output.write_table(
            ("line", "class", "confidence", "takes", "request"), rows, numbers=("line", "confidence")
        )  # fmt: skip


def _requests(source: str) -> Iterator[tuple[int, str]]:
    lines = [(number, line) for number, line in enumerate(source.splitlines(), start=1) if line.strip()]
    as_json = bool(lines) and all(line.lstrip().startswith("{") for _, line in lines)
    for number, line in lines:
        if not as_json:
            yield number, line
            continue
        row = parse_json(line, f"Line {number}")
        request = row.get("request", row.get("text"))
        if not isinstance(request, str):
            raise InvalidInputError(f'Line {number} has no "request"; expected an object with a text under that key.')
        yield number, request


# -- classes of your own -------------------------------------------------------------------------------------------


def complete_classifier_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the classifiers, for the shell, which must never be shown a failure."""
    try:
        from tinydancer.cli.context import State, settings_of
        from tinydancer.model.classifier import KIND
        from tinydancer.service import TinyDancer
        from tinydancer.store.base import SHIPPED_MODEL

        given = ctx.find_root().params
        settings = settings_of(State(store=given.get("store"), config=given.get("config"), tenant=given.get("tenant")))
        names = [SHIPPED_MODEL]
        if Path(settings.store).is_file():
            with TinyDancer(settings.store, settings=settings) as dancer:
                names += [row.name for row in dancer.store.list_models(KIND)]
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


_Name = Annotated[
    str,
    typer.Argument(autocompletion=complete_classifier_name, help="Its name; shipped is the package's own."),
]


@classifiers_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer classifiers train labelled.csv --use support-desk",
        "tinydancer classifiers train labelled.jsonl --out classes.safetensors --json",
        "# Only measure, store nothing:",
        "tinydancer classifiers train labelled.csv --seed 3",
    ),
)
def train(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Examples with class, text and, if wanted, capabilities: CSV, TSV, JSON or JSON lines; - for standard "
            "input.",
        ),
    ],
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write the classifier to this file.")] = None,
    use_: Annotated[
        str | None,
        typer.Option("--use", metavar="NAME", help="Store it under this name, and let it answer from now on."),
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", min=2, max=20, help="Parts of the cross-validation that the figures are from.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32, help="Of everything random.")] = 0,
    as_json: opt.Json = False,
) -> None:
    """Train classes of your own from labelled requests, and see how right they are.

    Every figure is on requests that were left out of the training: the examples are split into parts, and each part is
    predicted by a classifier that learnt from the others. The classifier that is kept learnt from all of them.
    """
    from tinydancer.classification import RequestClassification
    from tinydancer.classification_files import examples_of

    given = examples_of(read_text(file), what="Standard input" if file == STDIN else f"The file {file}")
    target = None if out is None else _writable(out)
    quiet = state_of(ctx).quiet or as_json
    with _open(ctx, make=use_ is not None) as dancer:
        kinds = RequestClassification(dancer)
        with output.progress(1000, "training", quiet=quiet) as advance:
            done = 0

            def progress(share: float, _what: str) -> None:
                nonlocal done
                now = int(1000 * share)
                if now > done:
                    advance(now - done)
                    done = now

            classifier, report = kinds.train(given, folds=folds, seed=seed, progress=progress)
        if target is not None:
            classifier.save(target)
        if use_ is not None:
            kinds.keep(use_, classifier)
    for warning in report.warnings:
        note(ctx, f"Warning: {warning}")
    if as_json:
        output.write_json({"out": out, "name": use_, "report": report.to_dict()})
        return
    _write_report(report, classifier)
    if out is not None:
        note(ctx, f"Wrote {out}.")
    if use_ is not None:
        note(ctx, f"{use_} answers from now on.")
    if out is None and use_ is None:
        note(ctx, "Nothing was kept; keep it with --out FILE or --use NAME.")


def _write_report(report: ClassifierReport, classifier: RequestClassifier) -> None:
    typer.echo(
        f"{report.accuracy:.1%} of {plural(report.judged_rows, 'unseen request')} in the right one of "
        f"{len(classifier.classes)} classes ({report.accuracy_by_vector:.1%} by vector alone); log loss "
        f"{report.log_loss:.3f}.\n"
    )
    rows = []
    for i, (name, count) in enumerate(report.class_counts.items()):
        precision, recall = report.of_class(name)
        taken = sorted(
            ((-n, other) for other, n in zip(report.class_counts, report.confusion[i], strict=True) if other != name)
        )
        wrong = ", ".join(f"{other} {-minus}" for minus, other in taken[:_CONFUSED_SHOWN] if minus)
        rows.append((name, str(count), output.share(precision), output.share(recall), wrong))
    output.write_table(
        ("class", "examples", "precision", "recall", "most often taken for"), rows,
        numbers=("examples", "precision", "recall"),
    )  # fmt: skip
    if report.capability_counts:
        typer.echo()
        output.write_table(
            ("capability", "examples", "right", "F1"),
            [
                (name, str(count), output.share(report.capability_accuracy[name]), output.share(f1))
                for (name, count), f1 in zip(
                    report.capability_counts.items(), report.capability_f1.values(), strict=True
                )
            ],
            numbers=("examples", "right", "F1"),
        )


@classifiers_app.command("list", rich_help_panel=_LOOK, epilog=examples("tinydancer classifiers list --json"))
def list_(ctx: typer.Context, as_json: opt.Json = False) -> None:
    """List the classifiers: the shipped one and your own, and which of them answers."""
    from tinydancer.classification import RequestClassification

    with _open(ctx) as dancer:
        found = RequestClassification(dancer).stored()
    listed: list[dict[str, Any]] = [
        {"name": "shipped", "answers": not any(row.is_active for row in found), "classes": None},
        *({"name": row.name, "answers": row.is_active, "classes": row.metadata.get("classes")} for row in found),
    ]
    if as_json:
        output.write_json(listed)
        return
    output.write_table(
        ("name", "answers", "classes"),
        [
            (one["name"], "yes" if one["answers"] else "", ", ".join(one["classes"] or ["the package's"]))
            for one in listed
        ],
    )


@classifiers_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer classifiers use support-desk",
        "tinydancer classifiers use support-desk --file classes.safetensors",
        "tinydancer classifiers use shipped",
    ),
)
def use(
    ctx: typer.Context,
    name: _Name,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Store this file under the name first.")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Let a classifier answer, in every process that uses the store, from its next request on."""
    from tinydancer.classification import RequestClassification

    content = None if file is None else read_bytes(file)[0]
    with open_dancer(ctx, make=True) as dancer:
        RequestClassification(dancer).use(name, content)
    _told(ctx, {"name": name, "answers": True}, f"{name} answers from now on.", as_json=as_json)


@classifiers_app.command(rich_help_panel=_CHANGE, epilog=examples("tinydancer classifiers remove support-desk"))
def remove(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Forget one of your own; if it answered, the shipped one does from now on."""
    from tinydancer.classification import RequestClassification

    with open_dancer(ctx) as dancer:
        RequestClassification(dancer).remove(name)
    _told(ctx, {"name": name, "removed": True}, f"Removed the classifier {name}.", as_json=as_json)


def _told(ctx: typer.Context, facts: dict[str, Any], message: str, *, as_json: bool) -> None:
    if as_json:
        output.write_json(facts)
    else:
        note(ctx, message)


def _writable(out: str) -> Path:
    """The file's path; an hour of training should not end with a folder that cannot be written."""
    path = Path(out)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InvalidInputError(f"{out} cannot be written: {os.strerror(error.errno or 0)}.") from None
    if path.is_dir():
        raise InvalidInputError(f"{out} is a folder; expected a file.")
    return path
