"""The two published chips: their numbers, jobs and streams."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.soc import (
    MIX_ORDER,
    soc_3pe,
    soc_3pe_jobs,
    soc_16pe,
    soc_16pe_jobs,
    stream_3pe,
    stream_16pe,
)
from schedrl.envs.socdag.structured import canonical
from schedrl.errors import ConfigError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: nothing to compare")

# Our jobs by their names in DS3's files.
DS3_JOBS = {
    "job_WIFI_5TXM": "wifi-tx",
    "job_WIFI_5RXM": "wifi-rx",
    "job_LAG": "range-detection",
    "job_TEMP_MIT": "temporal-mitigation",
}


def data(*parts: str) -> Any:
    path = Path(os.environ["SCHEDRL_DATA"], "socdag", *parts)
    return json.loads(path.read_text(encoding="utf-8"))


def single(job: str) -> SocDagInstance:
    return SocDagInstance(
        name=job, platform=soc_16pe(), graphs=(soc_16pe_jobs()[job],), whole_units=True, time_unit_s=1e-6
    )


def earliest_finish(instance: SocDagInstance) -> float:
    """Makespan when ready tasks go, earliest finish first, to the device that finishes them first (DS3's ETF)."""
    flat, links = instance.flat, instance.links
    sources = [flat.edge[flat.edge[:, 1] == task, 0].tolist() for task in range(instance.tasks)]
    size = {(int(s), int(t)): float(b) for (s, t), b in zip(flat.edge, flat.edge_bytes, strict=True)}
    end, device, free = np.full(instance.tasks, np.inf), np.zeros(instance.tasks, dtype=int), np.zeros(instance.devices)

    def finish(task: int) -> tuple[float, int]:
        arrival = np.full(instance.devices, now)
        for source in sources[task]:
            moved = size[source, task]
            hop = links[0, device[source]] + moved * links[1, device[source]]
            arrival = np.maximum(arrival, end[source] + (np.floor(hop + 1e-9) if moved else 0.0))
        finishes = np.maximum(arrival, free) + flat.duration[task]
        return float(finishes.min()), int(finishes.argmin())

    now, left = 0.0, set(range(instance.tasks))
    while left:
        ready = {task for task in left if all(end[source] <= now for source in sources[task])}
        while ready:
            best, place, task = min((*finish(task), task) for task in ready)
            end[task], device[task], free[place] = best, place, best
            ready.remove(task)
            left.remove(task)
        later = end[np.isfinite(end) & (end > now)]
        now = float(later.min()) if later.size else now
    return float(end.max())


def test_three_device_chip_and_its_first_job() -> None:
    job = soc_3pe_jobs()[0]
    assert np.array_equal(job.duration, canonical().graphs[0].duration)
    assert np.array_equal(job.edge, canonical().graphs[0].edge)
    assert np.array_equal(job.edge_bytes, canonical().graphs[0].edge_bytes)
    assert soc_3pe().link("P1", "P2").transfer_s(18.0) == pytest.approx(18e-6)
    assert [graph.edges for graph in soc_3pe_jobs()] == [15, 14, 12, 13, 14, 15, 14, 14, 14, 15]
    assert {graph.tasks for graph in soc_3pe_jobs()} == {10}


@NEEDS_DATA
def test_three_device_jobs_equal_the_files() -> None:
    theirs = {job["name"]: job for job in data("socrates", "jobs.json").values()}
    for graph in soc_3pe_jobs():
        volumes = theirs[graph.name.replace("top-", "Top_")]["comm_vol"]
        ours = np.column_stack([graph.edge, graph.edge_bytes])
        assert sorted(ours.tolist()) == sorted([float(value) for value in row] for row in volumes)
    costs = [
        [float(resource["exec_us"][name]) for name in soc_3pe_jobs()[0].task_names]
        for resource in data("socrates", "soc_top.json")["resources"][:3]
    ]
    assert np.array_equal(soc_3pe_jobs()[0].duration.T, costs)


def test_sixteen_device_chip() -> None:
    platform = soc_16pe()
    assert dict(zip((d.name for d in platform.devices), platform.counts, strict=True)) == {
        "A7": 4, "A15": 4, "MM": 2, "FFT": 4, "VIT": 2,
    }  # fmt: skip
    instance = single("wifi-rx")
    assert instance.devices == 16
    microseconds = np.floor(3000 * instance.links[1] + 1e-9)
    assert set(np.unique(microseconds)) == {0.0, 3.0, 300.0}
    kind = instance.device_type
    narrow = (kind[:, None] < 3) & (kind == 3)
    assert np.array_equal(microseconds == 300.0, narrow | narrow.T)
    assert np.array_equal(microseconds == 0.0, np.eye(16, dtype=bool))
    speed, power, count = instance.operating_points
    assert count.tolist() == [2] * 8 + [1] * 8
    assert speed[0].tolist() == pytest.approx([1.0, 10 / 14]) and power[0].tolist() == [0.39, 0.19]
    assert speed[4].tolist() == pytest.approx([1.0, 0.5]) and power[4].tolist() == [3.32, 0.85]


@pytest.mark.parametrize(
    ("job", "tasks", "edges"),
    [
        ("wifi-tx", 27, 30),
        ("wifi-rx", 34, 37),
        ("range-detection", 7, 7),
        ("temporal-mitigation", 10, 12),
        ("pulse-doppler", 451, 640),
    ],
)
def test_sizes_of_the_jobs(job: str, tasks: int, edges: int) -> None:
    graph = soc_16pe_jobs()[job]
    assert (graph.tasks, graph.edges) == (tasks, edges)
    assert len(set(graph.task_names)) == tasks


@NEEDS_DATA
@pytest.mark.parametrize(("theirs", "ours"), DS3_JOBS.items())
def test_sixteen_device_jobs_equal_the_files(theirs: str, ours: str) -> None:
    job, graph = data("ds3", "jobs.json")[theirs], soc_16pe_jobs()[ours]
    edges = np.column_stack([graph.edge, graph.edge_bytes]).tolist()
    assert sorted(edges) == sorted([float(value) for value in row] for row in job["comm_vol"])
    resources = data("ds3", "socs.json")["SoC.MULTIPLE_BAL"]["resources"][:5]
    costs = [[float(r["exec_us"].get(task["name"], np.inf)) for r in resources] for task in job["tasks"]]
    assert graph.duration.tolist() == costs


@NEEDS_DATA
def test_sixteen_device_chip_equals_the_file() -> None:
    soc = data("ds3", "socs.json")["SoC.MULTIPLE_BAL"]
    platform = soc_16pe()
    resources = soc["resources"][:5]
    assert tuple(resource["capacity"] for resource in resources) == platform.counts
    for device, resource in zip(platform.devices, resources, strict=True):
        highest = max(int(mhz) for mhz, _ in resource["opp_MHz_mV"])
        for state in device.power_states:
            mhz = state.name.removesuffix(" MHz")
            assert state.power_w == resource["power_W"][mhz][0]
            assert state.speed == int(mhz) / highest
    for source, target, bandwidth in soc["comm_band"]:
        if max(source, target) < 5:
            names = (platform.devices[int(source)].name, platform.devices[int(target)].name)
            for pair in (names, names[::-1]):
                assert platform.link(*pair).bandwidth_bytes_per_s == pytest.approx(bandwidth * 1e6)


@NEEDS_DATA
def test_pulse_doppler_takes_the_times_of_table_4() -> None:
    table = data("ds3", "paper_tables.json")["table4"]["Pulse_Doppler"]
    graph = soc_16pe_jobs()["pulse-doppler"]
    names = {
        "fft": "doppler_fft_1",
        "vector_mult": "vector_multiplication_1",
        "ifft": "doppler_ifft_1",
        "amplitude": "amplitude_1",
        "fft_shift": "fft_shift_1",
    }
    for kernel, (_, little, big, accelerator) in table.items():
        cost = graph.duration[graph.task_names.index(names[kernel])]
        assert cost.tolist() == [little, big, np.inf, accelerator or np.inf, np.inf]


@pytest.mark.parametrize(
    ("job", "measured", "published"),
    [("wifi-tx", 71, 69), ("wifi-rx", 291, 301), ("range-detection", 176, 177), ("pulse-doppler", 1057, 1045)],
)
def test_one_job_takes_about_as_long_as_published(job: str, measured: float, published: float) -> None:
    # Table 5 of the DS3 paper, ETF; its simulator breaks ties in another way.
    assert earliest_finish(single(job)) == measured
    assert measured == pytest.approx(published, rel=0.04)


def test_stream_on_three_devices_starts_full() -> None:
    instance = stream_3pe(np.random.default_rng(0), jobs=20, scale=50.0)
    assert instance.release_time[:3].tolist() == [0, 0, 0] and instance.release_time[-1] > 300
    assert (instance.admission_cap, instance.tasks, instance.devices) == (3, 200, 3)
    assert instance.whole_units and instance.time_unit_s == 1e-6
    assert (instance.release_time == np.floor(instance.release_time)).all()
    assert stream_3pe(np.random.default_rng(0), jobs=2).release_time.tolist() == [0, 0]


def test_open_loop_is_poisson_from_an_empty_system() -> None:
    instance = stream_3pe(np.random.default_rng(0), jobs=4000, scale=50.0, admission_cap=0)
    gap = np.diff(instance.release_time, prepend=0.0)
    assert instance.admission_cap == 0 and gap[:3].any()
    assert gap.mean() == pytest.approx(49.5, rel=0.05)  # exponential of mean 50, rounded down
    assert gap.std() == pytest.approx(50.0, rel=0.05)


def test_streams_that_differ_in_rate_and_noise_share_their_randomness() -> None:
    slow, fast = (stream_3pe(np.random.default_rng(7), scale=scale, noise_sigma=0.2) for scale in (200.0, 50.0))
    assert np.array_equal(slow.noise, fast.noise)
    gaps = [np.diff(stream.release_time) for stream in (slow, fast)]
    assert (np.abs(gaps[0] / 4 - gaps[1]) <= 1.0).all()
    still = stream_3pe(np.random.default_rng(7), scale=50.0)
    assert np.array_equal(still.release_time, fast.release_time) and np.array_equal(still.noise, fast.noise)


def test_templates_of_the_three_device_stream() -> None:
    mixed = stream_3pe(np.random.default_rng(0), jobs=500, templates="all")
    assert len(mixed.graphs) == 10
    assert (np.bincount(mixed.job_graph, minlength=10) >= 25).all()
    assert stream_3pe(np.random.default_rng(0), templates="top-4").graphs == (soc_3pe_jobs()[3],)


def test_stream_on_sixteen_devices_has_the_mix_exactly() -> None:
    instance = stream_16pe(np.random.default_rng(0))
    assert np.bincount(instance.job_graph).tolist() == [30, 30, 30, 10]
    assert [graph.name for graph in instance.graphs] == list(MIX_ORDER[:4])
    assert instance.tasks == 30 * 27 + 30 * 34 + 30 * 7 + 10 * 10
    assert instance.release_time[0] > 0 and instance.admission_cap == 12
    assert not np.array_equal(instance.job_graph, stream_16pe(np.random.default_rng(1)).job_graph)


@pytest.mark.parametrize(
    ("mix", "jobs", "count"),
    [
        (".3/.3/.3/.1", 1, [1, 0, 0, 0]),
        (".3/.3/.3/.1", 5, [2, 2, 1, 0]),
        ("1", 4, [4, 0, 0, 0]),
        ("1/1/2", 8, [2, 2, 4, 0]),
        ("0/0/0/0/1", 2, [0, 0, 0, 0, 2]),
    ],
)
def test_shares_round_by_largest_remainder(mix: str, jobs: int, count: list[int]) -> None:
    instance = stream_16pe(np.random.default_rng(0), jobs=jobs, mix=mix)
    names = [instance.graphs[k].name for k in instance.job_graph]
    assert [names.count(name) for name in MIX_ORDER[: len(count)]] == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "option jobs: 0, expected at least 1"),
        ({"scale": 0.0}, "option scale: 0.0, expected a positive number of microseconds"),
        ({"noise_sigma": -1.0}, "option noise_sigma: -1.0, expected 0 or more"),
        ({"admission_cap": -1}, "option admission_cap: -1, expected 0 or more"),
    ],
)
def test_streams_refuse_bad_options(options: dict[str, Any], message: str) -> None:
    for make in (stream_3pe, stream_16pe):
        with pytest.raises(ConfigError, match=message):
            make(np.random.default_rng(0), **options)


@pytest.mark.parametrize("mix", ["", "a/b", "0/0", "-1/2", "1/1/1/1/1/1", "inf/1"])
def test_bad_mixes_and_templates_are_refused(mix: str) -> None:
    with pytest.raises(ConfigError, match="option mix"):
        stream_16pe(np.random.default_rng(0), mix=mix)
    with pytest.raises(ConfigError, match="option templates: 'top-11', expected top-1 to top-10 or all"):
        stream_3pe(np.random.default_rng(0), templates="top-11")
