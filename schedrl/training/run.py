"""One training run: MaskablePPO over the batched simulator, with validation, checkpoints and exact resume.

A run folder holds ``config.yaml``, ``curve.csv`` and ``curve.svg`` (a row per validation), ``best.pt`` (the best
weights), ``checkpoint.pt`` (everything to continue), ``summary.json`` and ``tensorboard/``.
"""

from __future__ import annotations

import functools
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3.common.logger import configure

from schedrl.atomic import write_text
from schedrl.errors import ConfigError
from schedrl.families import get_family
from schedrl.policies.sb3 import EncodeOncePolicy
from schedrl.training.checkpoint import load_checkpoint, restore
from schedrl.training.config import TrainConfig, load_config
from schedrl.training.curriculum import Curriculum
from schedrl.training.group_buffer import GroupRolloutBuffer
from schedrl.training.imitation import demonstrate, imitate
from schedrl.training.monitor import RunMonitor
from schedrl.training.sb3_env import SchedulingVecEnv
from schedrl.training.validation import ValidationSuite
from schedrl.vector import Episodes, SchedulingVectorEnv

__all__ = ["build_model", "load_config", "train"]


def train(config: TrainConfig, out: Path, *, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train until ``total_decisions`` and return the summary that is also written to ``summary.json``.

    Args:
        config: determines the weights, together with the library versions.
        out: run folder; must not hold a run unless ``resume``.
        resume: continue from ``checkpoint.pt``; the curve equals that of an uninterrupted run.
        progress: show a progress bar with rate, time left and gap.

    Raises:
        ConfigError: the folder holds another run, nothing to resume, or CUDA asked for and missing.
    """
    _check_folder(config, out, resume)
    torch.set_num_threads(config.threads)
    # Masked logits of -1e8 trip the simplex check for float32 rounding only (sb3-contrib issue 81).
    torch.distributions.Distribution.set_default_validate_args(False)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", config.to_yaml())
    family = get_family(config.family)
    model, curriculum = build_model(config)
    model.set_logger(configure(str(out / "tensorboard"), ["tensorboard"]))
    suite = ValidationSuite(family, config.validation, config.simulator)
    monitor = RunMonitor(config, out, curriculum, suite, show=progress)
    if resume:
        state = load_checkpoint(out / "checkpoint.pt")
        monitor.restore(state["progress"])
        restore(state, model, curriculum, family)
    else:
        _warm_start(config, model, out)
    left = config.total_decisions - model.num_timesteps
    if left > 0:
        model.learn(left, callback=monitor, reset_num_timesteps=not resume)
    summary = _summary(config, model, monitor)
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _warm_start(config: TrainConfig, model: MaskablePPO, out: Path) -> None:
    """Load initial weights and imitate teachers, as the configuration says; writes ``imitation.json``."""
    policy = model.policy
    assert isinstance(policy, EncodeOncePolicy)
    if config.initial_weights:
        from schedrl.export.bundle import load_network

        first = load_network(Path(config.initial_weights))
        if first.config != policy.network.config:
            raise ConfigError(f"initial_weights: {config.initial_weights} has widths {first.config.to_dict()}")
        policy.network.load_state_dict(first.state_dict())
    if config.imitation is None:
        return
    family, rng = get_family(config.family), np.random.default_rng((config.seed, 1))
    lessons = config.imitation.lessons
    shown = demonstrate(family, lessons, config.simulator, discount=config.ppo.discount, rng=rng)
    agreement = imitate(policy.network, shown, config.imitation, rng)
    report = {"decisions": len(shown.action), "agreement_by_epoch": [round(share, 4) for share in agreement]}
    write_text(out / "imitation.json", json.dumps(report, indent=2) + "\n")


def build_model(config: TrainConfig) -> tuple[MaskablePPO, Curriculum]:
    """Return a fresh model on its environment, and the curriculum that feeds it."""
    family = get_family(config.family)
    curriculum = Curriculum(family, config.instances, config.environments, config.group_size)
    make_simulator = functools.partial(family.make_simulator, **config.simulator)
    episodes = Episodes(family, make_simulator, curriculum, "encode-once", config.environments)
    env = SchedulingVecEnv(SchedulingVectorEnv(episodes))
    ppo = config.ppo
    model = MaskablePPO(
        EncodeOncePolicy,
        env,
        learning_rate=_Linear(ppo.learning_rate, ppo.final_learning_rate),
        n_steps=ppo.rollout_steps,
        batch_size=ppo.minibatch,
        n_epochs=ppo.epochs,
        gamma=ppo.discount,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip,
        normalize_advantage=not ppo.group_normalised,
        ent_coef=ppo.entropy,
        vf_coef=ppo.value_weight,
        max_grad_norm=ppo.max_gradient_norm,
        rollout_buffer_class=GroupRolloutBuffer if ppo.group_normalised else MaskableDictRolloutBuffer,
        policy_kwargs={"family": config.family, "network": config.network.to_dict()},
        seed=config.seed,
        device=config.device,
    )
    policy = model.policy
    assert isinstance(policy, EncodeOncePolicy)
    policy.attach(episodes.graphs)
    return model, curriculum


class _Linear:
    """A schedule from ``first`` to ``last`` over the run, as SB3 calls it: with the share that remains."""

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last

    def __call__(self, remaining: float) -> float:
        return self._last + (self._first - self._last) * max(remaining, 0.0)


def _check_folder(config: TrainConfig, out: Path, resume: bool) -> None:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is not available here; use cpu")
    if resume and not (out / "checkpoint.pt").is_file():
        raise ConfigError(f"{out}: no checkpoint.pt to resume from; start without --resume")
    if resume and load_config(out / "config.yaml") != config:
        raise ConfigError(f"{out}: config.yaml differs from the configuration given; resume needs the same one")
    if not resume and (out / "config.yaml").exists():
        raise ConfigError(f"{out}: already holds a run; choose another folder or resume it")


def _summary(config: TrainConfig, model: MaskablePPO, monitor: RunMonitor) -> dict[str, Any]:
    return {
        "family": config.family,
        "seed": config.seed,
        "decisions": model.num_timesteps,
        "wall_s": round(monitor.seconds, 1),
        "decisions_per_s": round(model.num_timesteps / max(monitor.seconds, 1e-9), 1),
        "parameters": sum(weights.numel() for weights in model.policy.parameters()),
        "best_gap": monitor.best_gap,
        "best_decisions": monitor.best_decisions,
        "reference": config.validation.reference or "bound",
        "machine": f"{platform.machine()} {platform.system()}, {config.threads} torch thread(s), {config.device}",
        "versions": {
            name: version(name) for name in ("torch", "stable-baselines3", "sb3-contrib", "torch-geometric", "numpy")
        },
        "finished": time.strftime("%Y-%m-%d"),
    }
