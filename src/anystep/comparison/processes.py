"""Many trials: one after another in this process, or several at a time in separate processes."""

import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from types import FrameType
from typing import Any

import torch

from anystep.comparison.trials import Trial, TrialCallback, TrialEvent, TrialResult, attempt, stored_result
from anystep.core.registry import import_modules
from anystep.training.signals import STOPPING, StopRequest

#: seconds between looks at other processes
POLL = 0.2


def attempt_all(
    trials: Sequence[Trial], watch: TrialCallback, stop: StopRequest, jobs: int = 1, imports: Sequence[str] = ()
) -> list[TrialResult]:
    """Attempt all trials, ``jobs`` at a time, and return their results in the same order.

    With several jobs each trial has a process, which imports the modules ``imports``; the cores are divided among them.
    After a signal the running trials save a checkpoint and no more are started. If this process dies, the others save a
    checkpoint and end.
    """
    stored = [stored_result(trial) for trial in trials]
    results = [found if len(found.scores) == len(found.trial.steps) else TrialResult(found.trial) for found in stored]
    left = [number for number, result in enumerate(results) if not result.scores]
    if jobs > 1 and len(left) > 1:
        _attempt_in_processes(results, watch, stop, jobs, imports)
        return results
    for number in left:
        if stop.signal is None:
            results[number] = attempt(trials[number], watch, stop)
    return results


def _attempt_in_processes(
    results: list[TrialResult], watch: TrialCallback, stop: StopRequest, jobs: int, imports: Sequence[str]
) -> None:
    """Attempt the trials without scores in processes, and replace their results."""
    context = get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = deque(number for number, result in enumerate(results) if not result.scores)
    running: dict[Any, tuple[int, Any]] = {}
    try:
        while running or (waiting and stop.signal is None):
            while waiting and len(running) < jobs and stop.signal is None:
                number = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                arguments = results[number].trial, imports, threads, sender
                process = context.Process(target=_attempt_here, args=arguments, daemon=True)
                with _signals_blocked():
                    process.start()
                sender.close()
                running[receiver] = (number, process)
            if stop.signal is not None:
                for _, process in running.values():
                    process.terminate()
            pipes: list[Any] = list(running)
            ready: list[Any] = wait(pipes, timeout=POLL)
            for pipe in ready:
                number, process = running[pipe]
                trial = results[number].trial
                message: TrialEvent | TrialResult
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    message = TrialResult(trial, failed=f"its process ended with exit code {process.exitcode}")
                if isinstance(message, TrialEvent):
                    watch(trial, message)
                else:
                    results[number] = message
                    del running[pipe]
                    process.join()
    finally:
        for _, process in running.values():
            process.kill()  # checkpoints are written atomically


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals, also in processes started here: Ctrl-C reaches all processes of a terminal."""
    ensure_running()  # multiprocessing's resource tracker: starting it would unblock signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _attempt_here(trial: Trial, imports: Sequence[str], threads: int, pipe: "Connection[Any, Any]") -> None:
    """Attempt a trial in this process. It stops on SIGTERM, or when the process that reads the pipe is dead."""
    stop, last_sent = StopRequest(), 0.0

    def on_terminate(number: int, frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number)

    def send(trial: Trial, event: TrialEvent) -> None:
        nonlocal last_sent
        if event.record or event.text or time.monotonic() > last_sent + POLL:
            last_sent = time.monotonic()
            try:
                pipe.send(event)
            except BrokenPipeError:
                stop.signal = signal.SIGTERM

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    torch.set_num_threads(threads)
    import_modules(imports)
    result = attempt(trial, send, stop)
    with suppress(BrokenPipeError):
        pipe.send(result)
