"""`--weights` of the verbs that use a run."""

from collections.abc import Sequence

from anystep.cli.parse import split
from anystep.core.errors import UsageError
from anystep.run.averages import check_width
from anystep.run.weights import Weights


def read_weights(word: str) -> Weights:
    """Return the weights that a word means: ema, raw, or the width of a power average.

    Raises UsageError for others, and for a width that no power average has.
    """
    if word in ("ema", "raw"):
        return "ema" if word == "ema" else "raw"
    try:
        width = float(word)
    except ValueError:
        raise UsageError(f"--weights must be ema, raw or a power average's width such as 0.1, got {word!r}") from None
    try:
        check_width("--weights", width)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return width


def read_one(words: Sequence[str]) -> Weights:
    """Return what the one word means, for a verb that takes no more. Raises UsageError as `read_several` does."""
    found = read_several(words)
    if len(found) > 1:
        raise UsageError(f"--weights must be one only, got {', '.join(found)}; several with anystep evaluate")
    (weights,) = found.values()
    return weights


def read_several(words: Sequence[str]) -> dict[str, Weights]:
    """Return what each word means, by the word, each once. Raises UsageError for none, and as `read_weights` does."""
    found = {str(weights): weights for weights in map(read_weights, split(words) or [])}
    if not found:
        raise UsageError("--weights needs at least one of ema, raw or a width, e.g. --weights ema 0.05 0.1")
    return found
