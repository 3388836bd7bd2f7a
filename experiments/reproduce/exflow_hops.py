"""Hops of Mixtral's tokens from device to device per forward pass: ExFlow's figures, and layouts of the generator.

Run by hand: ``python -m schedrl.experiments.reproduce.exflow_hops``, with the data folder in ``SCHEDRL_DATA``. ExFlow
(arXiv 2401.08383) gives the hops of its placements in the names of the released files, measured on a trace of first
experts that is not public. They cannot be recomputed from the placements. What the files do show is checked here, and
our layouts are of the generator that was calibrated to those figures: another chain of experts, of equal affinity.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.moe.affinity import LayerChain, even_layout, exact_layout, search_layout
from schedrl.envs.moe.affinity import transition_matrices
from schedrl.envs.moe.generators import draw_shares
from schedrl.envs.moe.hops import expected_hops, hop_weights, read_exflow_placement
from schedrl.envs.moe.model import get_model
from schedrl.envs.moe.profiles import get_profile
from schedrl.experiments.measurement import Verdict, write_table, write_verdicts

__all__ = ["PUBLISHED", "calibrated_mixtral", "main", "measure", "relabelled_hops", "verdicts_of"]

# From the names of the files in solutions/ of YJHMITWEB/ExFlow at 039b86e: 17.495347692691237 and 22.166013704896926.
PUBLISHED: Mapping[int, float] = MappingProxyType({4: 17.495347692691237, 8: 22.166013704896926})
_UNIFORM: Mapping[int, float] = MappingProxyType({4: 23.25, 8: 27.125})
_LAYERS, _EXPERTS, _LIMIT_S = 32, 8, 20.0


def calibrated_mixtral(seed: int) -> tuple[F64, F64]:
    """Return the generator's shares (L, E) and transitions (L - 1, E, E) of Mixtral-8x7B."""
    rng, profile = np.random.default_rng(seed), get_profile("mixtral")
    shares = draw_shares(rng, profile, get_model("mixtral-8x7b"))[0]
    shares = shares / shares.sum(axis=1, keepdims=True)
    return shares, transition_matrices(rng, shares, affinity=profile.affinity)


def relabelled_hops(released: I32, shares: F64, transitions: F64, weights: F64, seed: int) -> float:
    """Return the least hops of a released layout over names of the generator's experts, by local search.

    The generator's experts have no names in common with Mixtral's, so each layer's may be exchanged. As a released
    layout is only as even as any other, this finds what a search from its devices finds: names carry no information.
    """
    chain = _chain(shares, transitions, weights, np.bincount(released[0]).astype(np.int32))
    found = search_layout(
        chain, released, np.random.default_rng(seed), deadline=time.perf_counter() + _LIMIT_S, kicks=500
    )
    return chain.cost(found)


def _chain(shares: F64, transitions: F64, weights: F64, base: I32) -> LayerChain:
    return LayerChain(flow=shares[:-1, :, None] * transitions, weights=weights, base=base)


def measure(folder: Path, seeds: Sequence[int]) -> list[dict[str, object]]:
    """Return a row for each number of devices and draw of the generator."""
    rows: list[dict[str, object]] = []
    for devices, published in PUBLISHED.items():
        released = read_exflow_placement(folder / f"mixtral-8x7b_exflow_placement_{devices}gpu.csv", _EXPERTS)
        base, weights = np.full(devices, _EXPERTS // devices, dtype=np.int32), hop_weights(np.zeros(devices, np.int32))
        even = all((np.bincount(held, minlength=devices) == base).all() for held in released)
        uniform = expected_hops(np.eye(devices)[released], np.ones(released.shape), None, weights)
        for seed in seeds:
            shares, transitions = calibrated_mixtral(seed)
            chain, started = _chain(shares, transitions, weights, base), time.perf_counter()
            layout = exact_layout(chain, deadline=started + _LIMIT_S)
            if layout is None:
                start = even_layout(base, _LAYERS)
                layout = search_layout(chain, start, np.random.default_rng(0), deadline=started + _LIMIT_S, kicks=0)
            seconds = time.perf_counter() - started
            hops = {
                name: expected_hops(np.eye(devices)[rows_], shares, transitions, weights)
                for name, rows_ in (
                    ("contiguous", even_layout(base, _LAYERS)),
                    ("released_names", released),
                    ("optimal", layout),
                )
            }
            row: dict[str, object] = {}
            row |= (
                {"devices": devices, "seed": seed, "published": published, "released_even": even}
                | {"released_uniform_routing": uniform}
                | {f"{name}_hops": value for name, value in hops.items()}
                | {"released_relabelled_hops": relabelled_hops(released, shares, transitions, weights, seed)}
                | {"layout_even": all((np.bincount(held, minlength=devices) == base).all() for held in layout)}
                | {"solve_s": seconds}
            )
            rows.append(row)
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def verdicts_of(rows: Sequence[Mapping[str, object]]) -> list[Verdict]:
    """Return what became of the claims."""
    verdicts = []
    for devices, published in PUBLISHED.items():
        mine = [row for row in rows if row["devices"] == devices]
        found = np.array([float(str(row["optimal_hops"])) for row in mine])
        uniform = {float(str(row["released_uniform_routing"])) for row in mine}
        below = int((found <= published).sum())
        verdicts += [
            Verdict(
                claim=f"uniform routing makes {_UNIFORM[devices]} hops on {devices} devices",
                measured=", ".join(f"{value:.6g} on the released placement" for value in sorted(uniform)),
                verdict="met" if uniform == {_UNIFORM[devices]} else "not met",
            ),
            Verdict(
                claim=f"ExFlow's layout makes {published:.3f} hops on {devices} devices, on its own trace",
                measured=f"the optimum of {len(mine)} draws of the generator: {found.mean():.3f}, "
                f"{found.min():.3f} to {found.max():.3f}",
                verdict=f"{below} of {len(mine)} draws at or below; the published figure itself is not recomputable",
            ),
        ]
    return verdicts


_NOTES = (
    "The published hops stand in the names of the released files; the trace (tokens x 32 layers) is not public.",
    "No count over expert pairs gives them: 17.495347692691237 and 22.166013704896926 are no multiples of 1/64.",
    "The released files do show: equal experts per device and layer, and 8 devices that refine 4, as bisection makes.",
    "The generator's experts share no names with Mixtral's: released layouts taken by name make about uniform "
    "hops on it; with names exchanged freely they are worth what any even layout is.",
    "On 4 devices dynamic programming proves the optimum; on 8, with one expert each, a chain of assignments does.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write CSV and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the results")
    parser.add_argument("--data", type=Path, default=os.environ.get("SCHEDRL_DATA"), help="folder of the data sets")
    parser.add_argument("--draws", type=int, default=10, help="draws of the generator")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("argument --data: SCHEDRL_DATA is unset")
    rows = measure(options.data / "moe" / "mixtral", range(options.draws))
    write_table(options.out / "exflow_hops.csv", rows)
    write_verdicts(options.out / "exflow_hops.json", verdicts_of(rows), _NOTES)


if __name__ == "__main__":
    main()
