"""Random graphs have the structure and the statistics they promise; every generator follows its seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.arrays import I32
from schedrl.envs.socdag.generators import GENERATORS, topcuoglu
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.errors import ConfigError

SMALL: dict[str, dict[str, Any]] = {
    "topcuoglu": {"tasks": 10, "devices": 3},
    "cholesky": {"tiles": 3},
    "lu": {"tiles": 3},
    "qr": {"tiles": 3},
    "gaussian-elimination": {"matrix": 4},
    "fft": {"points": 4},
    "fork-join": {"branches": 3, "stages": 2},
    "in-tree": {"levels": 3},
    "out-tree": {"levels": 3},
    "stencil": {"points": 3, "steps": 3},
    "laplace": {"side": 3},
    "stream-3pe": {"jobs": 4},
    "stream-16pe": {"jobs": 3},
    "agentic": {"jobs": 2, "agents": 2, "rounds": 1},
    "adversarial": {"tasks": 4, "devices": 3},
}


def depth_of(instance: SocDagInstance) -> I32:
    """Length in tasks of the longest path that ends at each task."""
    graph = instance.graphs[0]
    depth = np.ones(graph.tasks, dtype=np.int32)
    for source, target in graph.edge.tolist():  # sources have the lower numbers
        depth[target] = max(depth[target], depth[source] + 1)
    return depth


def test_names_of_the_generators() -> None:
    assert set(GENERATORS) == set(SMALL)


@pytest.mark.parametrize("name", GENERATORS)
def test_same_seed_same_instance_and_size_fixed_by_the_options(name: str) -> None:
    first, again, other = (GENERATORS[name](np.random.default_rng(seed), **SMALL[name]) for seed in (1, 1, 2))
    assert first == again
    assert (first.tasks, first.devices, first.jobs) == (other.tasks, other.devices, other.jobs)
    drawn = name not in ("cholesky", "lu", "qr")
    assert (first != other) is drawn


@pytest.mark.parametrize("name", GENERATORS)
def test_name_default_and_round_trip(name: str) -> None:
    instance = GENERATORS[name](np.random.default_rng(0), **SMALL[name], name="mine")
    assert instance.name == "mine"
    assert SocDagInstance.from_json(instance.to_json()) == instance
    assert GENERATORS[name](np.random.default_rng(0)).name.startswith(name)


@pytest.mark.parametrize("name", [name for name in GENERATORS if name != "agentic"])
def test_noise_is_drawn_last(name: str) -> None:
    calm, noisy = (GENERATORS[name](np.random.default_rng(5), **SMALL[name], noise_sigma=sigma) for sigma in (0.0, 0.5))
    assert np.array_equal(calm.flat.duration, noisy.flat.duration)
    assert np.array_equal(calm.flat.edge, noisy.flat.edge)
    assert np.array_equal(calm.flat.edge_bytes, noisy.flat.edge_bytes)
    assert np.array_equal(calm.release_time, noisy.release_time)
    assert noisy.noise is not None and len(np.unique(noisy.noise)) == noisy.tasks
    assert not calm.noise_sigma and noisy.noise_sigma == 0.5


@given(
    tasks=st.integers(1, 60),
    devices=st.integers(1, 6),
    shape=st.sampled_from([0.2, 0.5, 1.0, 2.0, 5.0]),
    out_degree=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_topcuoglu_structure(tasks: int, devices: int, shape: float, out_degree: int, seed: int) -> None:
    instance = topcuoglu(np.random.default_rng(seed), tasks=tasks, devices=devices, shape=shape, out_degree=out_degree)
    graph = instance.graphs[0]
    assert (graph.tasks, instance.devices) == (tasks, devices)
    assert (graph.edge[:, 0] < graph.edge[:, 1]).all()
    depth = depth_of(instance)
    # Levels are contiguous and as many as the longest path: only the first has no predecessor.
    assert (np.diff(depth) >= 0).all() and (np.diff(depth) <= 1).all()
    assert np.array_equal(np.setdiff1d(np.arange(tasks), graph.edge[:, 1]), np.flatnonzero(depth == 1))
    # Tasks of all levels but the last send to out_degree others, or to all behind their level if those are fewer.
    degree = np.bincount(graph.edge[:, 0], minlength=tasks)
    behind = np.array([(depth > level).sum() for level in depth])
    assert (degree >= np.minimum(out_degree, behind)).all()
    assert graph.edges <= int(np.minimum(out_degree, behind).sum()) + int((depth > 1).sum())


@pytest.mark.parametrize(("shape", "levels", "width"), [(0.5, 20.0, 5.0), (1.0, 10.0, 10.0), (2.0, 5.0, 20.0)])
def test_topcuoglu_height_and_width_follow_alpha(shape: float, levels: float, width: float) -> None:
    depths = [
        int(depth_of(topcuoglu(np.random.default_rng(seed), tasks=100, shape=shape)).max()) for seed in range(200)
    ]
    # Widths are drawn until all tasks are placed, so there is a little more than one level per mean width.
    assert levels <= np.mean(depths) <= levels + 1.0
    assert np.mean(100 / np.array(depths)) == pytest.approx(width, rel=0.1)


def test_topcuoglu_costs_have_the_stated_means_and_ranges() -> None:
    instance = topcuoglu(
        np.random.default_rng(0), tasks=5000, devices=8, ccr=0.5, heterogeneity=0.5, mean_duration=20.0, out_degree=2
    )
    duration = instance.graphs[0].duration
    assert duration.mean() == pytest.approx(20.0, rel=0.03)
    assert duration.max() <= 2 * 20.0 * 1.25
    assert (duration.max(axis=1) / duration.min(axis=1)).max() <= 1.25 / 0.75 + 1e-12
    size = instance.graphs[0].edge_bytes
    assert size.mean() == pytest.approx(0.5 * 20.0, rel=0.03)
    assert size.max() <= 2 * 0.5 * 20.0
    assert instance.links[0].max() == 0.0 and instance.links[1].max() == 1.0


def test_topcuoglu_without_heterogeneity_is_homogeneous() -> None:
    duration = topcuoglu(np.random.default_rng(0), heterogeneity=0.0, ccr=0.0).graphs[0].duration
    assert (duration == duration[:, :1]).all()


def test_open_options_are_drawn_from_the_values_of_the_paper() -> None:
    ratio = [
        float(graph.edge_bytes.mean() / graph.duration.mean())
        for graph in (topcuoglu(np.random.default_rng(seed), tasks=60).graphs[0] for seed in range(150))
    ]
    counts = np.histogram(ratio, bins=[0.0, 0.25, 0.75, 2.5, 7.5, 20.0])[0]
    assert counts.sum() == 150 and (counts >= 15).all()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("tasks", 0, "option tasks: 0, expected at least 1"),
        ("devices", 0, "option devices: 0, expected at least 1"),
        ("shape", 0.0, "option shape: 0.0, expected a positive number"),
        ("out_degree", 0, "option out_degree: 0, expected at least 1"),
        ("ccr", -1.0, "option ccr: -1.0, expected 0 or more"),
        ("heterogeneity", 2.5, "option heterogeneity: 2.5, expected 0 to 2"),
        ("mean_duration", 0.0, "option mean_duration: 0.0, expected a positive number"),
        ("noise_sigma", float("nan"), "option noise_sigma: nan, expected 0 or more"),
    ],
)
def test_topcuoglu_refuses_bad_options(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        topcuoglu(np.random.default_rng(0), **{option: value})  # type: ignore[arg-type]
