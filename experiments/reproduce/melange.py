"""Mélange: its worked example, what mixed fleets save, and whether the fleets meet the objectives they were chosen for.

Run by hand, with ``SCHEDRL_DATA``: ``python -m schedrl.experiments.reproduce.melange``. Each fleet is chosen for the
first half of a trace, with 0 to 100 % of the rate added until it meets the objectives there, simulated; the second half
at the same rate then tells whether it does. Requests go to types in the shares that the integer program found, to the
instance of a type with the fewest requests; for comparison also to whichever instance is expected to be free first.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from schedrl.arrays import F32, F64, I32, Bool
from schedrl.baselines.routing.fleet_profile import EDGES, Objectives, profile_device, request_mix
from schedrl.baselines.routing.fleet_selection import FleetSelection, GpuType, select_fleet, single_type_fleets
from schedrl.benchmark_data import data_file, data_folder
from schedrl.devices.language_model import get_language_model
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, arrivals
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import Workload, rescaled, route, split_halves
from schedrl.experiments.measurement import Verdict, write_table, write_verdicts

__all__ = ["CASES", "Case", "attainments", "main", "measure_case", "play_assignment", "verdicts_of", "worked_example"]

# Azure's conversations with their arrivals, and lengths of ShareGPT with random ones.
_TRACES = {
    "azure": "routing/azure/AzureLLMInferenceTrace_conv.csv",
    "sharegpt": "routing/vidur_a30/sharegpt_val_10k_llama2_lengths.csv",
}
_MODEL = "llama-2-7b"
_TYPES = ("l4", "a10g", "a100-sxm-80gb", "h100-sxm")
_ADDED = tuple(k / 10 for k in range(11))
_SHARE = 0.9
_RULE = "least-pending-time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trace, its rate, and objectives."""

    trace: str
    requests_per_s: float
    tpot_s: float
    ttft_s: float = 5.0


CASES: tuple[Case, ...] = tuple(
    Case(trace=trace, requests_per_s=rate, tpot_s=tpot_s)
    for trace in _TRACES
    for tpot_s in (0.12, 0.04)
    for rate in (5.0, 20.0, 60.0)
)


def worked_example(slice_factor: int) -> FleetSelection:
    """Return the fleet for ``melange/config/example.json`` of the authors' repository (at ebba701)."""
    types = (
        GpuType(name="A10G", price_usd_per_h=1.01, requests_per_s=np.array([[2.0, 1.0], [5.0, 2.0]])),
        GpuType(name="A100-80GB", price_usd_per_h=3.67, requests_per_s=np.array([[20.0, 20.0], [40.0, 20.0]])),
    )
    return select_fleet(types, 30.0 * np.array([[0.2, 0.1], [0.5, 0.2]]), slice_factor=slice_factor)


def play_assignment(instance: RoutingInstance, share: F64, types: Sequence[str], edges: Sequence[int]) -> RoutingPlan:
    """Return the plan in which each bucket's requests go to types by shares, and there to the fewest requests.

    Args:
        instance: whose instances are of these types.
        share: (G, I, O) share of each bucket that each type serves.
        types: G device names.
        edges: of the buckets.
    """
    row = np.searchsorted(edges, instance.prompt_tokens), np.searchsorted(edges, instance.output_tokens)
    kind = np.array([types.index(server.device) for server in instance.fleet])
    present = np.isin(np.arange(len(types)), kind)
    given = np.zeros(share.shape)
    simulator = Simulator([instance], 1)
    action, reward, done = _buffers()
    while not simulator.finished(0):
        r = int(simulator.state.current[0])
        bucket = row[0][r], row[1][r]
        # Sizes that the first half lacks go anywhere.
        wanted = share[:, *bucket] * present
        wanted = wanted / wanted.sum() if wanted.sum() > 0 else present / present.sum()
        debt = wanted * (given[:, *bucket].sum() + 1.0) - given[:, *bucket]
        offered = simulator.state.offered[0, : simulator.state.candidates[0]]
        busy = simulator.state.inflight[0, offered]
        best = np.lexsort((busy, -debt[kind[offered]]))[0]
        given[(kind[offered[best]], *bucket)] += 1.0
        action[0] = best
        simulator.step(action, reward, done)
    return simulator.solution(0)


def _buffers() -> tuple[I32, F32, Bool]:
    return np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)


def play_rule(instance: RoutingInstance) -> RoutingPlan:
    """Return the plan in which requests go where work is expected to be done first."""
    simulator = Simulator([instance], 1)
    simulator.play_rule(_RULE)
    return simulator.solution(0)


def attainments(instance: RoutingInstance, plan: RoutingPlan) -> dict[str, float]:
    """Return the shares of requests that meet each objective and both, refused ones meeting none."""
    served = plan.instance >= 0
    first = served & (plan.first_token_s - arrivals(instance, plan) <= instance.ttft_slo_s)
    rest = plan.finish_s - plan.first_token_s
    token = served & (rest <= instance.tpot_slo_s * (instance.output_tokens - 1))
    return {"ttft": float(first.mean()), "tpot": float(token.mean()), "both": float((first & token).mean())}


def measure_case(case: Case, history: Workload, future: Workload) -> dict[str, object]:
    """Return a row: the fleet with the least added rate that meets the objectives on ``history``, on both halves.

    Where none of the added rates is enough the row has the largest.
    """
    history, future = rescaled(history, case.requests_per_s), rescaled(future, case.requests_per_s)
    objectives = Objectives(ttft_s=case.ttft_s, tpot_s=case.tpot_s, attainment=_SHARE)
    mix = request_mix(history.arrival_s, history.prompt_tokens, history.output_tokens)
    types = [profile_device(name, get_language_model(_MODEL), mix, objectives) for name in _TYPES]
    row: dict[str, object] = {}
    for added in _ADDED:
        found = select_fleet(types, mix.rates, overprovision=added)
        now = _simulated(history, found, case)
        row = {"trace": case.trace, "requests_per_s": case.requests_per_s}
        row |= {"slo_ttft_s": case.ttft_s, "slo_tpot_s": case.tpot_s, "added": added}
        row |= _costs(found, types, single_type_fleets(types, mix.rates, overprovision=added))
        row |= {f"first_{name}": share for name, share in now.items()}
        if now["both"] >= _SHARE:
            break
    return row | {f"second_{name}": share for name, share in _simulated(future, found, case).items()}


def _costs(found: FleetSelection, types: Sequence[GpuType], alone: Mapping[str, int | None]) -> dict[str, object]:
    """Return the columns of a fleet and of what it saves against the fleets of one type that serve the same."""
    singles = {known.name: (alone[known.name], known.price_usd_per_h) for known in types}
    costs = {name: count * price for name, (count, price) in singles.items() if count is not None}
    best = min(costs, key=lambda name: costs[name])
    row: dict[str, object] = {
        "fleet": " + ".join(f"{count} {name}" for name, count in found.counts.items() if count),
        "usd_per_h": found.price_usd_per_h,
        "lower_bound_usd_per_h": found.lower_bound,
        "best_single": f"{alone[best]} {best}",
        "saving": 1.0 - found.price_usd_per_h / costs[best],
    }
    saved = {name: 1.0 - found.price_usd_per_h / costs[name] if name in costs else None for name in singles}
    return row | {f"saving_vs_{name}": value for name, value in saved.items()}


def _simulated(half: Workload, found: FleetSelection, case: Case) -> dict[str, float]:
    servers = fleet({name: count for name, count in found.counts.items() if count}, _MODEL)
    instance = route(half, servers, "melange", ttft_slo_s=case.ttft_s, tpot_slo_s=case.tpot_s)
    shares = attainments(instance, play_assignment(instance, found.share, _TYPES, EDGES))
    return shares | {_RULE: attainments(instance, play_rule(instance))["both"]}


def verdicts_of(rows: Sequence[Mapping[str, object]]) -> list[Verdict]:
    """Return what the worked example and the simulated fleets say."""
    example, finer = worked_example(1), worked_example(4)
    same = example.counts == {"A10G": 3, "A100-80GB": 1} and math.isclose(example.price_usd_per_h, 6.7)
    savings = [float(str(row["saving"])) for row in rows]
    against = [
        float(str(row[name])) for row in rows for name in row if name.startswith("saving_vs_") and row[name] is not None
    ]
    met, added, chosen_for = (
        [float(str(row[name])) for row in rows] for name in ("second_both", "added", "first_both")
    )
    return [
        Verdict(
            claim="the example of melange-release: 3 A10G and 1 A100-80GB at 6.70 USD/h",
            measured=f"{dict(example.counts)} at {example.price_usd_per_h:.2f} USD/h; with 4 slices per bucket "
            f"{dict(finer.counts)} at {finer.price_usd_per_h:.2f}",
            verdict="reproduced" if same else "differs",
        ),
        Verdict(
            claim="mixed fleets save up to 77 % against fleets of one type, 2 to 33 % in the hard cases",
            measured=f"against the best single type {min(savings):.0%} to {max(savings):.0%}, against any up to "
            f"{max(against):.0%}",
            verdict=f"some saving in {sum(saved > 0.005 for saved in savings)} of {len(savings)} cases",
        ),
        Verdict(
            claim=f"a chosen fleet meets the objectives it was chosen for in {_SHARE:.0%} of requests",
            measured=f"on the half it was chosen for {_percent(chosen_for)}; on the unseen half {_percent(met)}, with "
            f"{', '.join(f'{share:.0%}' for share in added)} of the rate added",
            verdict=f"in {sum(share >= _SHARE for share in chosen_for)} of {len(met)} cases; on the unseen half in "
            f"{sum(share >= _SHARE for share in met)}",
        ),
    ]


_NOTES = (
    "Throughputs are computed from the device model, not measured; prices are those of the catalogue.",
    "The rate added is the least of 0 to 100 % with which the first half of the trace meets the objectives.",
    f"Columns with {_RULE} have the same fleet under that rule instead of the program's shares.",
    "Fleets of one type are those that the same throughputs and added rate need; they are not simulated.",
)


def _percent(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.1%}" for share in shares)


def _read(name: str) -> Workload:
    path = data_file("melange", data_folder("melange", _TRACES[name]), _TRACES[name])
    if name == "azure":
        return read_workload(path)
    lengths = read_workload(path, requests_per_s=1.0)
    gaps = np.random.default_rng(0).exponential(1.0, lengths.requests)
    return replace(lengths, arrival_s=np.cumsum(gaps))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write CSV and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the results")
    options = parser.parse_args(arguments)
    halves = {name: split_halves(_read(name)) for name in _TRACES}
    rows = []
    for case in CASES:
        rows.append(measure_case(case, *halves[case.trace]))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    write_table(options.out / "melange.csv", rows)
    write_verdicts(options.out / "melange.json", verdicts_of(rows), _NOTES)


if __name__ == "__main__":
    main()
