"""The local pool: worker processes that take chunks and hand back rows, whatever happens to one of them.

The invariant: every input of every task is reported exactly once, by a worker that finished it or, when every worker
that tried it ended, as a row with that reason. A worker tells which input it tries, so a death has a name: the rest of
its chunk goes to another worker, and an input that three workers did not survive is tried no more.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import xrdz
from xrdz.errors import XrdzError
from xrdz.worker import Began, ChunkReport, ChunkTask, Failed, Finished, Reason, received, send

MAX_DEATHS = 3
"""Workers an input may cost before it is left alone; one death may be chance, such as a kill for lack of memory."""

MAX_BAD_STARTS = 3
ANALYSES_PER_WORKER = 5000
"""A worker is replaced after so many, so that nothing a library leaks adds up over days."""

TICK_SECONDS = 0.5
ONE_THREAD = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""Set to 1 in every worker: matrices are small, and threads of many processes would only wait for each other."""


def usable_cores() -> int:
    """Return how many cores this process may use, as a batch system has set it."""
    stated = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if stated.isdecimal() and int(stated) > 0:
        return int(stated)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Worker:
    """One process with the chunk it has; its reports arrive in the queue of the pool."""

    def __init__(self, inbox: queue.Queue[tuple[Worker, Any]]) -> None:
        environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
        package = str(Path(xrdz.__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(
            entry for entry in (package, environment.get("PYTHONPATH", "")) if entry
        )
        # Its own process group: Ctrl-C reaches the parent alone, which lets the workers finish their scan.
        own_group: dict[str, Any] = {"creationflags": 0x00000200} if sys.platform == "win32" else {"process_group": 0}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", "from xrdz.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            **own_group,
        )
        self.task: ChunkTask | None = None
        self.done: set[str] = set()
        self.current = ""
        self.started = False
        self.analysed = 0
        self.timed_out = False
        self._tries: tuple[str, float] = ("", 0.0)
        self.thread = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self.thread.start()

    def _listen(self, inbox: queue.Queue[tuple[Worker, Any]]) -> None:
        stream = cast("IO[bytes]", self.process.stdout)
        try:
            while True:
                message = received(stream)
                # While the pool has no room for messages the worker waits, which is not the fault of its scan.
                self._tries = ("", 0.0)
                inbox.put((self, message))
                if isinstance(message, Began):
                    self._tries = (message.name, time.monotonic())
        except (EOFError, OSError, ValueError):
            self.process.wait()
            inbox.put((self, None))

    def give(self, task: ChunkTask) -> None:
        """Hand over a chunk; a worker that is gone is noticed by its silence."""
        self.task, self.done, self.current = task, set(), ""
        self._send(task)

    def is_slow(self, limit: float) -> bool:
        """Return whether it has tried one input for longer than `limit` seconds."""
        name, since = self._tries
        return bool(name) and time.monotonic() - since > limit

    def ask_to_stop(self) -> None:
        """Let it store what it has and leave the rest of its chunk."""
        self._send("stop")

    def _send(self, message: object) -> None:
        with contextlib.suppress(OSError):
            send(cast("IO[bytes]", self.process.stdin), message)

    def end(self) -> None:
        """End the process; its last input is analysed again at the next start."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class LocalPool:
    """Worker processes of this machine; they start when the first task comes and stay until `close`.

    Parameters
    ----------
    jobs : how many processes
    time_limit : seconds one scan may take, None for any
    stop : when set, workers store what they have and no task is begun
    """

    def __init__(self, jobs: int, *, time_limit: float | None = None, stop: threading.Event | None = None) -> None:
        self.jobs = max(jobs, 1)
        self.time_limit = time_limit
        self.stop = stop or threading.Event()
        # Bounded, so that workers wait for whoever takes their results, and memory stays flat.
        self._inbox: queue.Queue[tuple[Worker, Any]] = queue.Queue(maxsize=2 * self.jobs + 2)
        self._workers: list[Worker] = []
        self._deaths: dict[str, int] = {}
        self._bad_starts = 0

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.end()
            while worker.thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    self._inbox.get_nowait()
                worker.thread.join(0.01)
        self._workers.clear()

    def run(self, tasks: Iterator[ChunkTask]) -> Iterator[ChunkReport]:
        """Yield the rows of all tasks as they are safe; tasks are taken as workers become free.

        Raises
        ------
        XrdzError
            If parts cannot be written, or workers cannot start.
        """
        waiting: deque[ChunkTask] = deque()
        exhausted = asked = False
        while True:
            if self.stop.is_set():
                waiting.clear()
                exhausted = True
                if not asked:
                    for worker in self._workers:
                        worker.ask_to_stop()
                    asked = True
            exhausted = self._hand_out(tasks, waiting, exhausted) or exhausted
            if exhausted and not waiting and all(worker.task is None for worker in self._workers):
                return
            try:
                worker, message = self._inbox.get(timeout=TICK_SECONDS)
            except queue.Empty:
                self._end_the_slow()
                continue
            if isinstance(message, ChunkReport):
                worker.done.update(row.file for row in message.rows)
                worker.analysed += len(message.rows)
                yield message
            elif isinstance(message, Began):
                worker.current = message.name
                self._end_the_slow()
            elif isinstance(message, Finished):
                self._free(worker)
            elif isinstance(message, Failed):
                raise message.error
            else:
                waiting.extendleft(reversed(self._bury(worker)))

    def _hand_out(self, tasks: Iterator[ChunkTask], waiting: deque[ChunkTask], exhausted: bool) -> bool:
        """Give a task to every free worker, and start workers while there are tasks for them.

        Returns
        -------
        exhausted : whether `tasks` has no more
        """
        while True:
            free = next((worker for worker in self._workers if worker.started and worker.task is None), None)
            starting = sum(not worker.started for worker in self._workers)
            if free is None and len(self._workers) >= self.jobs:
                return exhausted
            if len(waiting) <= (0 if free is not None else starting):
                following = None if exhausted else next(tasks, None)
                if following is None:
                    return True
                waiting.append(following)
            if free is not None:
                free.give(waiting.popleft())
            else:
                self._workers.append(Worker(self._inbox))

    def _free(self, worker: Worker) -> None:
        worker.started, worker.task, worker.current = True, None, ""
        self._bad_starts = 0
        if worker.analysed >= ANALYSES_PER_WORKER:
            self._workers.remove(worker)
            worker.end()

    def _bury(self, worker: Worker) -> list[ChunkTask]:
        """Take a worker that ended out of the pool and return what it left undone."""
        if worker not in self._workers:
            return []
        self._workers.remove(worker)
        code = worker.process.returncode
        worker.end()
        if not worker.started:
            self._bad_starts += 1
            if self._bad_starts >= (MAX_BAD_STARTS if code > 0 else 10 * MAX_BAD_STARTS):
                raise XrdzError(f"worker processes do not start (exit code {code}); see the lines above")
        task, name = worker.task, worker.current
        if task is None or self.stop.is_set():
            return []
        rest = task.without(worker.done)
        if not name or name in worker.done:
            return [rest] if rest.inputs else []
        self._deaths[name] = self._deaths.get(name, 0) + 1
        if worker.timed_out:
            words = f"took longer than the limit of {self.time_limit:g} s; raise --time-limit if it should be fitted"
            rest = replace(rest, blamed={**rest.blamed, name: (Reason.TIME_LIMIT, words)})
        elif self._deaths[name] >= MAX_DEATHS:
            words = f"{self._deaths[name]} processes that tried it ended ({_ending(code)}); is there enough memory?"
            rest = replace(rest, blamed={**rest.blamed, name: (Reason.WORKER_DIED, words)})
        # Alone, so that another death costs nothing but itself.
        suspect = {scan.name for scan in rest.inputs if scan.name != name}
        left = [rest.without(suspect), rest.without({name})]
        return [part for part in left if part.inputs]

    def _end_the_slow(self) -> None:
        if self.time_limit is None:
            return
        for worker in self._workers:
            if worker.is_slow(self.time_limit):
                worker.timed_out = True
                worker.process.kill()


def _ending(code: int) -> str:
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
