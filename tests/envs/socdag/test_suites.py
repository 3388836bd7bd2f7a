"""The shipped sets: names, sizes, seeds and known optima."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.suites import SUITES, load_entry, load_instance
from schedrl.errors import UnknownNameError

SIZES = {
    "canonical": 1,
    "cholesky": 3,
    "lu": 3,
    "qr": 3,
    "rgg-small": 25,
    "rgg-large": 200,
    "stream-3pe": 120,
    "stream-16pe": 40,
    "agentic": 10,
    "adversarial": 21,
    "demo": 8,
}


def instances(suite: str) -> list[SocDagInstance]:
    loaded = [entry.instance for entry in SUITES[suite].load()]
    assert all(isinstance(instance, SocDagInstance) for instance in loaded)
    return loaded  # type: ignore[return-value]


def test_names_and_number_of_instances() -> None:
    assert {name: len(suite.load()) for name, suite in SUITES.items()} == SIZES
    assert all(SUITES[name].name == name and SUITES[name].source for name in SIZES)


@pytest.mark.parametrize("suite", SIZES)
def test_names_differ_and_loading_is_kept(suite: str) -> None:
    names = [instance.name for instance in instances(suite)]
    assert len(set(names)) == len(names)
    assert SUITES[suite].load() is SUITES[suite].load()


@pytest.mark.parametrize(
    ("name", "tasks", "bounds"),
    [
        ("canonical", 10, (73, 73)),
        ("cholesky-4", 20, (74, 74)),
        ("cholesky-6", 56, (None, None)),
        ("cholesky-8", 120, (208, 235)),
        ("lu-4", 30, (93, 93)),
        ("lu-8", 204, (386, 414)),
        ("qr-4", 30, (26, 26)),
        ("qr-8", 204, (90, 99)),
    ],
)
def test_known_optima_and_bounds(name: str, tasks: int, bounds: tuple[float | None, float | None]) -> None:
    entry = load_entry(name)
    assert (entry.lower_bound, entry.best_known) == bounds
    assert load_instance(name).tasks == tasks
    assert entry.optimal is (bounds[0] is not None and bounds[0] == bounds[1])


def test_random_graphs() -> None:
    assert {(instance.tasks, instance.devices) for instance in instances("rgg-small")} == {(20, 4)}
    large = instances("rgg-large")
    tasks = np.array([instance.tasks for instance in large])
    assert tasks.min() < 30 and tasks.max() > 90 and tasks.min() >= 20 and tasks.max() <= 100
    assert {instance.devices for instance in large} == {4, 5, 6, 7, 8}
    ratio = [instance.graphs[0].edge_bytes.mean() / instance.graphs[0].duration.mean() for instance in large]
    assert (np.histogram(ratio, bins=[0.0, 0.25, 0.75, 2.5, 7.5, 20.0])[0] >= 20).all()


def test_streams() -> None:
    stream = load_instance("3pe-scale25-sigma0.2-seed3")
    assert (stream.jobs, stream.tasks, stream.devices) == (100, 1000, 3)
    assert (stream.noise_sigma, stream.admission_cap, stream.graphs[0].name) == (0.2, 3, "top-1")
    same = load_instance("3pe-scale200-sigma0.5-seed3")
    assert np.array_equal(stream.noise, same.noise)
    big = load_instance("16pe-scale300-seed0")
    assert (big.jobs, big.devices, big.admission_cap, big.noise_sigma) == (100, 16, 12, 0.0)
    assert len({instance.release_time.tobytes() for instance in instances("stream-16pe")}) == 40


def test_demo_is_small_and_static() -> None:
    assert all(instance.static and instance.tasks <= 40 for instance in instances("demo"))


def test_seeded_suites_stay_as_they_are() -> None:
    # Results in reports are comparable only as long as these digests hold.
    digests = {}
    for suite in ("rgg-small", "stream-3pe", "stream-16pe"):
        digest = hashlib.sha256()
        for instance in instances(suite):
            graph = instance.graphs[0]
            for array in (graph.edge, np.round(graph.duration, 6), np.round(graph.edge_bytes, 6)):
                digest.update(array.tobytes())
            digest.update(instance.job_graph.tobytes() + instance.release_time.tobytes())
        digests[suite] = digest.hexdigest()[:16]
    assert digests == {
        "rgg-small": "f99946a8fc8f93f1",
        "stream-3pe": "ebf3ed78f25c78db",
        "stream-16pe": "4312a0470c49bc0c",
    }


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown socdag instance 'nope'; its suite is one of canonical,"):
        load_entry("nope")
