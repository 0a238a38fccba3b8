"""Exit codes of the command line: one table, from the error tree to numbers a script can rely on.

In: an exception. Out: the number with which the process ends.
"""

from __future__ import annotations

from tinydancer import errors

OK = 0
UNEXPECTED = 1
INVALID_INPUT = 2
NOT_FOUND = 3
ALREADY_EXISTS = 4
NO_AGENT = 5
STORE = 6
CONFIG = 7
MODEL = 8
INTERRUPTED = 130
CLOSED_PIPE = 141

MEANINGS = {
    OK: "done",
    UNEXPECTED: "an unexpected failure (a bug, or a machine in trouble)",
    INVALID_INPUT: "wrong usage or invalid input",
    NOT_FOUND: "no such agent, decision or model",
    ALREADY_EXISTS: "the name or file exists already",
    NO_AGENT: "no agent fits, or none is registered",
    STORE: "the store cannot be read or written",
    CONFIG: "a mistake in the settings file",
    MODEL: "the embedder or a model failed",
    INTERRUPTED: "interrupted with Ctrl-C",
    CLOSED_PIPE: "whoever read the output stopped reading",
}
"""What each code means, in a few words; the help of ``tinydancer`` shows them."""

_OF_ERROR: tuple[tuple[type[errors.TinyDancerError], int], ...] = (
    (errors.InvalidInputError, INVALID_INPUT),
    (errors.NotFoundError, NOT_FOUND),
    (errors.AlreadyExistsError, ALREADY_EXISTS),
    (errors.RoutingError, NO_AGENT),
    (errors.StoreError, STORE),
    (errors.ConfigError, CONFIG),
    (errors.EmbedderError, MODEL),
    (errors.ModelError, MODEL),
)


def exit_code_of(error: BaseException) -> int:
    """The exit code that stands for an error."""
    return next((code for kind, code in _OF_ERROR if isinstance(error, kind)), UNEXPECTED)
