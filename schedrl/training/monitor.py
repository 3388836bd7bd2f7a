"""What happens between rollouts: validation, best weights, checkpoints, schedules and the progress bar."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from schedrl.atomic import replacing, write_text
from schedrl.plotting.curves import curve_chart
from schedrl.plotting.lines import save_lines
from schedrl.policies.network_policy import NetworkPolicy
from schedrl.training.checkpoint import save_checkpoint
from schedrl.training.config import TrainConfig
from schedrl.training.curriculum import Curriculum
from schedrl.training.validation import ValidationSuite

__all__ = ["RunMonitor"]


class RunMonitor(BaseCallback):
    """Runs before every rollout, when model, optimiser and environment are in step.

    Validation and checkpoints fall on the first rollout after each multiple of their interval, so they fall
    on the same decisions in a resumed run.
    """

    def __init__(
        self, config: TrainConfig, out: Path, curriculum: Curriculum, suite: ValidationSuite, *, show: bool
    ) -> None:
        super().__init__()
        self._config, self._out, self._curriculum, self._suite, self._show = config, out, curriculum, suite, show
        self._rows: list[dict[str, float]] = []
        self._validated = self._saved = -1  # interval numbers done
        self._seconds_before = 0.0
        self._started = time.perf_counter()
        self.best_gap = float("inf")
        self.best_decisions = 0
        self._bar: Any = None

    @property
    def seconds(self) -> float:
        """Wall seconds of the run so far, over all its interruptions."""
        return self._seconds_before + time.perf_counter() - self._started

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Continue from the ``progress`` of a checkpoint."""
        self._rows = [dict(row) for row in progress["rows"]]
        self._validated, self._saved = progress["validated"], progress["saved"]
        self._seconds_before = progress["seconds"]
        self.best_gap, self.best_decisions = progress["best_gap"], progress["best_decisions"]
        self._write_curve()

    def _on_training_start(self) -> None:
        self._started = time.perf_counter()
        if self._show:
            self._bar = _ProgressBar(self._config.total_decisions, self.model.num_timesteps)

    def _on_rollout_start(self) -> None:
        config, done = self._config, self.model.num_timesteps
        share = min(done / config.total_decisions, 1.0)
        self._curriculum.progress = share
        ppo = config.ppo
        self.model.ent_coef = ppo.entropy + (ppo.final_entropy - ppo.entropy) * share  # type: ignore[attr-defined]  # PPO's
        if done // config.validation.every_decisions > self._validated:
            self._validated = done // config.validation.every_decisions
            self._validate()
        if done // config.checkpoint_every_decisions > self._saved:
            self._saved = done // config.checkpoint_every_decisions
            self._save()

    def _on_step(self) -> bool:
        if self._bar is not None:
            self._bar.advance_to(self.num_timesteps, self._rows[-1]["gap"], self.best_gap)
        return True

    def _on_training_end(self) -> None:
        self._validate()
        self._save()
        if self._bar is not None:
            self._bar.stop()

    def _validate(self) -> None:
        policy: Any = self.model.policy
        policy.set_training_mode(False)
        gaps = self._suite.gaps(NetworkPolicy(policy.network))
        mean = sum(gaps.values()) / len(gaps)
        self._rows.append(
            {"decisions": self.model.num_timesteps, "seconds": round(self.seconds, 1), "gap": mean, **gaps}
        )
        self._write_curve()
        self.logger.record("validation/gap", mean)
        for label, gap in gaps.items():
            self.logger.record(f"validation/{label}", gap)
        self.logger.record("train/entropy_weight", getattr(self.model, "ent_coef", 0.0))
        self.logger.dump(self.model.num_timesteps)
        if mean < self.best_gap:
            self.best_gap, self.best_decisions = mean, self.model.num_timesteps
            self._write_best(policy, gaps)

    def _write_best(self, policy: Any, gaps: Mapping[str, float]) -> None:
        best = {
            "network": policy.network.state_dict(),
            "config": policy.network.config.to_dict(),
            "family": self._config.family,
            "steps": self.model.num_timesteps,
            "validation": dict(gaps),
        }
        with replacing(self._out / "best.pt") as temporary:
            torch.save(best, temporary)

    def _save(self) -> None:
        progress = {
            "rows": self._rows,
            "validated": self._validated,
            "saved": self._saved,
            "seconds": self.seconds,
            "best_gap": self.best_gap,
            "best_decisions": self.best_decisions,
        }
        save_checkpoint(self._out / "checkpoint.pt", self.model, self._curriculum, progress)  # type: ignore[arg-type]

    def _write_curve(self) -> None:
        if not self._rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self._rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._out / "curve.csv", text.getvalue())
        save_lines(curve_chart({self._out.name: self._out / "curve.csv"}), self._out / "curve.svg")


class _ProgressBar:
    """Rich's bar with the rate of decisions, the time left, and the last and best validation gap."""

    def __init__(self, total: int, done: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} decisions/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("gap {task.fields[gap]}"),
        )
        self._task = self._progress.add_task("training", total=total, completed=done, rate="-", gap="-")
        self._first, self._started = done, time.perf_counter()
        self._progress.start()

    def advance_to(self, done: int, gap: float, best: float) -> None:
        rate = (done - self._first) / max(time.perf_counter() - self._started, 1e-9)
        self._progress.update(
            self._task, completed=done, rate=f"{rate:,.0f}", gap=f"{100 * gap:+.2f} % (best {100 * best:+.2f} %)"
        )

    def stop(self) -> None:
        self._progress.stop()
