"""Trains what is not in the cache, several at a time, and says how long it will take."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ddnn.errors import DdnnError
from training.paper.run import Cache, Data, Run, probe, train_into

POLL_S = 0.5
#: A worker's first run imports torch.
START_S = 4.0


def minutes(seconds: float) -> str:
    """`1 h 20 min`, `5 min` or `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60:02} min"


class Schedule:
    """Work of an evaluation, and how fast this machine does it.

    Args:
        cache: where bundles are kept.
        data: what they are trained on.
        jobs: trainings at a time, each of one thread.
        console: told of progress.
    """

    def __init__(self, cache: Cache, data: Data, jobs: int, console: Console) -> None:
        self._cache = cache
        self._data = data
        self._jobs = jobs
        self._console = console
        self._samples = len(data.read().train)
        self._seconds_per_step: float | None = None

    def pending(self, runs: Sequence[Run]) -> list[Run]:
        """Those that are not in the cache."""
        return [run for run in runs if not self._cache.has(run)]

    def estimate_s(self, runs: Sequence[Run]) -> float:
        """How long the pending ones of `runs` will take, from those done or a short trial."""
        pending = self.pending(runs)
        if not pending:
            return 0.0
        done = [run for run in runs if self._cache.has(run)]
        work = sum(run.work(self._samples) for run in pending)
        if done and self._seconds_per_step is None:
            spent = sum(self._cache.seconds(run) for run in done)
            self._seconds_per_step = spent / sum(run.work(self._samples) for run in done)
        if self._seconds_per_step is None:
            self._seconds_per_step = probe(pending[0], self._data)
        return work * self._seconds_per_step / min(self._jobs, len(pending)) + START_S

    def train(self, runs: Sequence[Run], what: str) -> None:
        """Train the pending ones of `runs`; those done so far stay done if interrupted.

        Raises:
            DdnnError: a training failed.
        """
        pending = self.pending(runs)
        if not pending:
            self._console.print(f"{what}: all {len(runs)} trained networks are in the cache")
            return
        estimate = self.estimate_s(runs)
        self._console.print(
            f"{what}: {len(pending)} of {len(runs)} networks to train, {self._jobs} at a time: "
            f"about {minutes(estimate)}"
        )
        pool = ProcessPoolExecutor(
            self._jobs, multiprocessing.get_context("spawn"), initializer=_be_a_worker
        )
        try:
            with self._bar() as bar:
                self._follow(pool, pending, bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
        pool.shutdown()

    def _follow(self, pool: ProcessPoolExecutor, pending: list[Run], bar: Progress) -> None:
        total = sum(run.work(self._samples) for run in pending)
        task = bar.add_task("", total=total, count=0, of=len(pending), left="")
        # Largest first: no long one is left over at the end for one worker alone.
        order = sorted(pending, key=lambda run: -run.work(self._samples))
        waiting: dict[Future[float], Run] = {
            pool.submit(train_into, self._cache, run, self._data): run for run in order
        }
        done, count, spent = 0.0, 0, 0.0
        while waiting:
            ready, _ = wait(waiting, POLL_S, FIRST_COMPLETED)
            for future in ready:
                run = waiting.pop(future)
                if error := future.exception():
                    raise DdnnError(f"training {_name(run)} failed: {error}") from error
                done += run.work(self._samples)
                spent += future.result()
                count += 1
                self._seconds_per_step = spent / done
            running = sum(self._share(run) * run.work(self._samples) for run in waiting.values())
            left = ""
            if self._seconds_per_step is not None:
                rest = max(0.0, total - done - running) * self._seconds_per_step
                left = f"about {minutes(rest / self._jobs)} left"
            bar.update(task, completed=done + running, count=count, left=left)
            if ready and not self._console.is_terminal:
                self._console.print(f"  {count} of {len(pending)} trained, {left}")

    def _share(self, run: Run) -> float:
        try:
            return float(self._cache.progress_file(run).read_text() or 0)
        except (OSError, ValueError):
            return 0.0

    def _bar(self) -> Progress:
        return Progress(
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[count]} of {task.fields[of]} trained"),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
        )


def _name(run: Run) -> str:
    return f"of cameras {','.join(map(str, run.cameras))}, seed {run.training.seed}"


def _be_a_worker() -> None:
    """Ctrl-C is the parent's; one thread each, and less urgent than whatever else runs here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.nice(5)
