"""Simulated runs against a real one, and the fast mode of the simulator against the exact one.

The real run is vLLM 0.19 with Llama-3.1-8B on an RTX 4090, 300 ShareGPT requests at ten a second (LLMServingSim, Cho et
al. 2024 and later releases). Nothing is fitted to it: the device's constants come from profiles of single operators.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64
from schedrl.benchmark_data import data_file, data_folder
from schedrl.devices.language_model import get_language_model
from schedrl.devices.serving import serving_row
from schedrl.devices.serving_validation import Validation, compared
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import MOONCAKE
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import clipped, rescaled, route, window
from schedrl.errors import InstanceError

__all__ = ["MeasuredRun", "read_run", "simulated", "validations"]

_SUITE = "devices validate"
_RUN = "routing/llmservingsim/bench/RTX4090/Llama-3.1-8B"
_PROMPTS = "routing/llmservingsim/sharegpt-llama-3.1-8b-300-sps10.lengths_hash16.jsonl"
_DEVICE, _MODEL = "rtx4090", "llama-3-8b"
_GOAL = 0.06
_TIMES = ("queued_ts", "first_token_ts", "last_token_ts")
# Of Mooncake's conversation trace on eight A100, near the rate that they sustain.
_REQUESTS, _PROMPT_CAP, _REQUESTS_PER_S = 4000, 20480, 11.5


class MeasuredRun(NamedTuple):
    """What was served, and when. Times are seconds since the first request was queued."""

    instance: RoutingInstance
    first_token_s: F64  # (R,)
    finish_s: F64  # (R,)


class _Latencies(NamedTuple):
    """Seconds of every request (R,)."""

    ttft: F64
    tpot: F64
    whole: F64

    @classmethod
    def of(cls, run: RoutingInstance, first_token_s: F64, finish_s: F64) -> _Latencies:
        later = np.maximum(run.output_tokens - 1, 1)
        return cls(first_token_s - run.arrival_s, (finish_s - first_token_s) / later, finish_s - run.arrival_s)


def validations(root: Path | None = None) -> list[Validation]:
    """Compare a simulated run with the measured one, and aggregated simulation with exact simulation.

    Args:
        root: folder of the benchmark data, by default the one that ``SCHEDRL_DATA`` names.

    Raises:
        InstanceError: the variable is unset, or a file is missing or breaks its format.
    """
    root = root or data_folder(_SUITE, _PROMPTS)
    run = read_run(root)
    exact, fast = simulated(run.instance, exact=True), simulated(run.instance, exact=False)
    measured = _Latencies.of(run.instance, run.first_token_s, run.finish_s)
    predicted = _Latencies.of(run.instance, exact.first_token_s, exact.finish_s)
    found = []
    for label, real, ours in zip(("TTFT", "time per output token", "end to end"), measured, predicted, strict=True):
        found.append(_means(f"rtx4090 vLLM run, mean {label}", real, ours, _GOAL))
        found.append(compared(f"rtx4090 vLLM run, {label} of each request", real, ours))
    return [*found, *_modes("rtx4090 vLLM run", run.instance, exact, fast), *_mooncake(root)]


def read_run(root: Path) -> MeasuredRun:
    """Read the measured run and the engine that it was measured on.

    Args:
        root: folder of the benchmark data.

    Raises:
        InstanceError: a file is missing or breaks its format.
    """
    meta = _engine(data_file(_SUITE, root, f"{_RUN}/meta.json"))
    prompts = read_workload(data_file(_SUITE, root, _PROMPTS))
    path = data_file(_SUITE, root, f"{_RUN}/requests.jsonl")
    queued, first, last = _times(path, prompts.requests)
    serving = ServingInstance(
        name=_DEVICE,
        device=_DEVICE,
        model=_MODEL,
        coefficients=serving_row(_DEVICE, get_language_model(_MODEL)),
        kv_tokens=meta["num_gpu_blocks"] * meta["block_size"],
        token_budget=meta["max_num_batched_tokens"],
        max_sequences=meta["max_num_seqs"],
    )
    # The engine's own clock says when requests came; the client's, which is another, when they were written.
    instance = RoutingInstance(
        name="vLLM on RTX 4090",
        fleet=(serving,),
        arrival_s=queued - queued[0],
        prompt_tokens=prompts.prompt_tokens,
        output_tokens=prompts.output_tokens,
        block_start=prompts.block_start,
        blocks=prompts.blocks,
        block_tokens=prompts.block_tokens,
    )
    return MeasuredRun(instance, first - queued[0], last - queued[0])


def simulated(instance: RoutingInstance, *, exact: bool, rule: str = "affinity") -> RoutingPlan:
    """Return what the simulator makes of an instance under one of its built-in rules."""
    simulator = Simulator([instance], 1, exact=exact)
    simulator.play_rule(rule)
    return simulator.solution(0)


def _mooncake(root: Path) -> list[Validation]:
    trace = window(read_workload(data_file(_SUITE, root, MOONCAKE), "mooncake"), first=0, count=_REQUESTS)
    workload = rescaled(clipped(trace, _PROMPT_CAP), _REQUESTS_PER_S)
    instance = route(workload, fleet({"a100-sxm-80gb": 8}), "Mooncake on 8 A100")
    exact, fast = simulated(instance, exact=True), simulated(instance, exact=False)
    return _modes("Mooncake on 8 A100", instance, exact, fast)


def _modes(name: str, instance: RoutingInstance, exact: RoutingPlan, fast: RoutingPlan) -> list[Validation]:
    """Compare the means of the aggregated mode with those of the exact mode, which stands for what is measured."""
    served = (exact.instance >= 0) & (fast.instance >= 0)
    pairs = zip(
        ("TTFT", "time per output token", "end to end"),
        _Latencies.of(instance, exact.first_token_s, exact.finish_s),
        _Latencies.of(instance, fast.first_token_s, fast.finish_s),
        strict=True,
    )
    return [_means(f"{name}, aggregated against exact, mean {label}", a[served], b[served]) for label, a, b in pairs]


def _means(name: str, measured: F64, predicted: F64, goal: float | None = None) -> Validation:
    return compared(name, measured.mean(keepdims=True), predicted.mean(keepdims=True), goal)


def _engine(path: Path) -> dict[str, int]:
    """Return the sizes that an engine's run had."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        sizes = {**data["kv_cache"], **data["engine_kwargs"]}
        return {
            name: int(sizes[name])
            for name in ("num_gpu_blocks", "block_size", "max_num_batched_tokens", "max_num_seqs")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InstanceError(f"{path}: not the description of a run: {type(error).__name__} {error}") from None


def _times(path: Path, requests: int) -> tuple[F64, F64, F64]:
    """Return when each request was queued, got its first token, and its last."""
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record: Any = json.loads(line)
            rows.append([float(record[name]) for name in _TIMES])
        except (ValueError, KeyError, TypeError) as error:
            raise InstanceError(f"{path}:{number}: not a request's times: {type(error).__name__} {error}") from None
    if len(rows) != requests:
        raise InstanceError(f"{path}: {len(rows)} requests, expected the {requests} of {Path(_PROMPTS).name}")
    queued, first, last = np.array(rows, dtype=np.float64).T
    return queued, first, last
