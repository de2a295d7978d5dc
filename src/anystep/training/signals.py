"""Stop requests: Ctrl-C and SIGTERM end a run after the current update, with a checkpoint."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """The signal that requests a run to stop, None until then."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextmanager
def stop_on_signal(tell: Callable[[], None] | None = None) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request within the block; a second one acts at once.

    ``tell`` is called inside the signal's handler: it must take no lock and use no buffered file.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in STOPPING}

    def on_signal(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        signal.signal(number, before[signal.Signals(number)])
        if tell is not None:
            tell()

    for number in STOPPING:
        signal.signal(number, on_signal)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
