"""``tinydancer embed``: texts as the vectors that routing compares.

In: texts. Out: their vectors as JSON or as a NumPy file, or a look at them and at how near they are to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.context import note, settings_of, state_of
from tinydancer.cli.inputs import STDIN, read_text
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.validation import FloatVector

_MOST_COMPARED = 12


def embed(
    ctx: typer.Context,
    text: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Each gets a vector; - is standard input.")],
    numpy: Annotated[
        str | None, typer.Option("--numpy", metavar="FILE", help="Save them as float32[texts, dimensions] (.npy).")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Turn texts into vectors; several are compared with each other."""
    import numpy as np

    from tinydancer.service import TinyDancer

    texts = [read_text(STDIN).rstrip("\r\n") if t == STDIN else t for t in text]
    with TinyDancer(settings=settings_of(state_of(ctx))) as dancer:
        space = dancer.embedder.space
        vectors = np.array([dancer.embed(t) for t in texts], dtype=np.float32)
    if numpy is not None:
        try:
            with open(numpy, "wb") as file:  # np.save would add an ending to the name it is given
                np.save(file, vectors)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"The file {numpy} cannot be written: {error}.") from None
        note(ctx, f"Saved {vectors.shape[0]} x {vectors.shape[1]} numbers of space {space.name} to {numpy}.")
    if as_json:
        output.write_json({"space": space.name, "dim": space.dim, "embeddings": vectors.tolist()})
    elif numpy is None:
        _write_look(texts, vectors, str(space))


def _write_look(texts: list[str], vectors: FloatVector, space: str) -> None:
    shown = [" ".join(t.split()) for t in texts]
    shown = [t if len(t) <= 50 else f"{t[:47]}..." for t in shown]
    starts = [" ".join(f"{x:+.3f}" for x in vector[:5]) + " ..." for vector in vectors]
    heads = [str(number) for number in range(1, len(texts) + 1)]
    output.write_table(("", "text", space), list(zip(heads, shown, starts, strict=True)))
    if 1 < len(texts) <= _MOST_COMPARED:
        typer.echo("\nCosine similarity")
        near = vectors @ vectors.T
        rows = [(heads[i], *(f"{x:.2f}" for x in near[i])) for i in range(len(texts))]
        output.write_table(("", *heads), rows, numbers=heads)
