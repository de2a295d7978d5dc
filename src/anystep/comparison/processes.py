"""Many trials, one after another here, or some at a time in processes of their own."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from threading import Thread
from typing import Any

import torch

from anystep.comparison.trials import News, Result, Trial, Watch, attempt, known
from anystep.core.registry import import_modules
from anystep.training.signals import STOPPING, StopRequest

#: seconds between looks at what other processes say
POLL = 0.2


def attempt_all(trials: Sequence[Trial], watch: Watch, stop: StopRequest, jobs: int = 1) -> list[Result]:
    """Make all trials, ``jobs`` at a time; the cores are shared out among them. Results are in the trials' order.

    One at a time they are made here, several in a process each. After a signal each saves a checkpoint, and no more
    begin; when this process dies, the others save a checkpoint and end.
    """
    results = [known(trial) or Result() for trial in trials]
    left = [number for number, result in enumerate(results) if not result.rows]
    if jobs > 1 and len(left) > 1:
        _in_processes(trials, left, results, watch, stop, jobs)
        return results
    for number in left:
        if stop.signal is None:
            results[number] = attempt(trials[number], watch, stop)
    return results


def _in_processes(
    trials: Sequence[Trial], left: Sequence[int], results: list[Result], watch: Watch, stop: StopRequest, jobs: int
) -> None:
    """Make the trials whose numbers are ``left``, each in a process of its own, and put down their results."""
    context = get_context("spawn")
    heard = context.RawValue("i", 0)
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = deque(left)
    running: dict[Any, tuple[int, Any]] = {}
    try:
        while running or (waiting and stop.signal is None):
            heard.value = stop.signal or 0
            while waiting and len(running) < jobs and stop.signal is None:
                number = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(trials[number], threads, heard, theirs), daemon=True)
                with _unheard():
                    process.start()
                theirs.close()
                running[ours] = (number, process)
            pipes: list[Any] = list(running)
            ready: list[Any] = wait(pipes, timeout=POLL)
            for pipe in ready:
                number, process = running[pipe]
                message: News | Result
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    message = Result(failed=f"its process ended with exit code {process.exitcode}")
                if isinstance(message, News):
                    watch(trials[number], message)
                else:
                    results[number] = message
                    del running[pipe]
                    process.join()
    finally:
        for _, process in running.values():
            process.kill()  # checkpoints appear whole or not at all


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep signals waiting. A process that is started here never hears any: Ctrl-C reaches all of a terminal's."""
    ensure_running()  # multiprocessing's own process: starting it would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(trial: Trial, threads: int, heard: Any, pipe: "Connection[Any, Any]") -> None:
    """Make one trial in a process of its own; signals come from the first process, in ``heard``."""
    stop, parent, told = StopRequest(), os.getppid(), 0.0

    def listen() -> None:
        while stop.signal is None:
            time.sleep(POLL)
            if heard.value or os.getppid() != parent:
                stop.signal = signal.Signals(heard.value or signal.SIGTERM)

    def watch(trial: Trial, news: News) -> None:
        nonlocal told
        if news.record or news.text or time.monotonic() > told + POLL:
            told = time.monotonic()
            with suppress(BrokenPipeError):  # nobody is left to tell: the run ends with a checkpoint
                pipe.send(news)

    Thread(target=listen, daemon=True).start()
    torch.set_num_threads(threads)
    import_modules(trial.imports)
    result = attempt(trial, watch, stop)
    with suppress(BrokenPipeError):
        pipe.send(result)
