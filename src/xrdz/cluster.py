"""The one door to Dask: chunks on an existing scheduler, a few per worker at a time.

A scheduler slows down with millions of futures and costs milliseconds for each, so whole chunks are sent, and only
`WINDOW` of them for every thread of the cluster wait there; the next one follows when one comes back. Workers write the
parts themselves, to the run's folder on the file system they share with this process, and send back rows alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xrdz.errors import InputError, XrdzError
from xrdz.process import keep_freed_memory
from xrdz.worker import ChunkReport, ChunkTask, Reason, run_chunk

if TYPE_CHECKING:
    from distributed import Client

WINDOW = 3
"""Chunks for each thread of the cluster that are with the scheduler: one at work and two so that none waits."""

CONNECT_SECONDS = 10
WORKERS_SECONDS = 120


def run_on_cluster(
    tasks: Callable[[int], Iterator[ChunkTask]], address: str, *, stop: threading.Event
) -> Iterator[ChunkReport]:
    """Yield the rows of all tasks as they are safe.

    Parameters
    ----------
    tasks : gives the chunks for a number of threads
    address : of the scheduler, such as tcp://host:8786
    stop : when set, no chunk is begun; those at work store their parts all the same

    Raises
    ------
    InputError
        If Dask is not installed, the scheduler cannot be reached or is lost, or no worker comes.
    XrdzError
        If a worker cannot store results or has another version of xrdz.
    """
    client = _connected(address)
    try:
        yield from _windowed(client, tasks(_threads(client, address)), address, stop)
    finally:
        client.close()


def chunk_on_worker(task: ChunkTask) -> list[ChunkReport]:
    """Return all reports of a chunk; this is what a Dask worker runs."""
    keep_freed_memory()
    return list(run_chunk(task))


def _connected(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("Dask is not installed; install it with: pip install 'xrdz[cluster]'") from None
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"--dask {address}: the scheduler cannot be reached ({error or 'no answer'}); "
            "start it with `dask scheduler`, or check the address"
        ) from None


def _threads(client: Client, address: str) -> int:
    """Return the threads of all workers, once there is one."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except TimeoutError:
        raise InputError(
            f"--dask {address}: no worker in {WORKERS_SECONDS} s; start some with `dask worker {address} --nthreads 1`"
        ) from None
    return _counted(client)


def _counted(client: Client) -> int:
    threads: dict[str, int] = client.nthreads()
    return max(sum(threads.values()), 1)


def _windowed(client: Client, tasks: Iterator[ChunkTask], address: str, stop: threading.Event) -> Iterator[ChunkReport]:
    from distributed import CancelledError, as_completed

    at_work: dict[str, ChunkTask] = {}
    results = as_completed(loop=client.loop, with_results=True, raise_errors=False)

    def submit(task: ChunkTask) -> None:
        future = client.submit(chunk_on_worker, _absolute(task), pure=False)
        at_work[future.key] = task
        results.add(future)

    window = WINDOW * _counted(client)
    for _, task in zip(range(window), tasks, strict=False):
        submit(task)
    for future, result in results:
        task = at_work.pop(future.key)
        if future.status == "finished":
            following = None if stop.is_set() else next(tasks, None)
            if following is not None:
                submit(following)
            yield from result
        elif stop.is_set():
            continue
        else:
            failure = result[1] if isinstance(result, tuple) else result
            if future.cancelled() or isinstance(failure, CancelledError):
                raise InputError(f"--dask {address}: the scheduler was lost; start the same command again to go on")
            for part in _divided(task, failure):
                submit(part)
        if stop.is_set() and at_work:
            # Chunks at work store their parts; the next start finds them.
            return


def _divided(task: ChunkTask, failure: Any) -> list[ChunkTask]:
    """Return what to do instead of a chunk whose workers ended: its halves, and for one input the row that says so."""
    from distributed import KilledWorker

    if isinstance(failure, XrdzError):
        raise failure
    if not isinstance(failure, KilledWorker):
        raise InputError(
            f"a Dask worker failed ({type(failure).__name__}: {failure}); is the same xrdz installed on all workers?"
        )
    if len(task.inputs) > 1:
        first = {scan.name for scan in task.inputs[: len(task.inputs) // 2]}
        second = {scan.name for scan in task.inputs} - first
        return [task.without(second), task.without(first)]
    words = "every Dask worker that tried it ended; is there enough memory?"
    return [replace(task, blamed={task.inputs[0].name: (Reason.WORKER_DIED, words)})]


def _absolute(task: ChunkTask) -> ChunkTask:
    """Return the task with the run's folder as an absolute path, for processes that stand in another folder."""
    run = task.spec.run
    if run is None:
        return task
    return replace(task, spec=replace(task.spec, run=replace(run, path=run.path.resolve())))
