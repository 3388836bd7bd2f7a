"""Runs tasks one after another in this process, or several at once in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from schedrl.evaluation.execution import Outcome, Task, failed_outcome, run_task
from schedrl.schedulers import Scheduler

__all__ = ["run_tasks"]

_DIED = "the process running it died (crashed, or killed for want of memory)"


def run_tasks(tasks: Iterable[Task], jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Yield every task with its outcome as it finishes.

    With one job everything runs in this process, in order. With more, a scheduler that takes its process down
    costs only its own row: the tasks that were in flight are repeated alone to find out which one it was.
    """
    if jobs == 1:
        built: dict[str, Scheduler] = {}
        for task in tasks:
            yield task, run_task(task, built)
        return
    remaining = iter(tasks)
    while True:
        suspects = yield from _until_broken(remaining, jobs)
        if not suspects:
            return
        for task in suspects:
            yield task, _alone(task)


def _until_broken(tasks: Iterator[Task], jobs: int) -> Generator[tuple[Task, Outcome], None, list[Task]]:
    running: dict[Future[Outcome], Task] = {}
    suspects: list[Task] = []
    executor = _executor(jobs)
    try:
        while not suspects:
            for task in islice(tasks, jobs - len(running)):
                try:
                    running[executor.submit(_in_worker, task)] = task
                except BrokenProcessPool:  # a worker died after the last look at the futures
                    suspects.append(task)
                    break
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    suspects.append(task)
                except Exception as error:  # a task or an outcome that cannot be sent between processes
                    yield task, failed_outcome(task, f"{type(error).__name__}: {' '.join(str(error).split())}")
    finally:
        executor.shutdown(wait=not suspects, cancel_futures=True)
    return [*suspects, *running.values()]


def _alone(task: Task) -> Outcome:
    with _executor(1) as executor:
        try:
            return executor.submit(_in_worker, task).result()
        except BrokenProcessPool:
            return failed_outcome(task, _DIED)


def _executor(jobs: int) -> ProcessPoolExecutor:
    # Spawned, not forked: forking a process that holds torch or OR-Tools threads can deadlock.
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


_worker_schedulers: dict[str, Scheduler] = {}


def _in_worker(task: Task) -> Outcome:
    return run_task(task, _worker_schedulers)
