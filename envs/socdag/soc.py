"""Two published systems on a chip with their jobs, and streams of such jobs.

Sources: S. E. Arda et al., "DS3: A System-Level Domain-Specific System-on-Chip Simulation Framework", IEEE
Transactions on Computers, 2020, doi 10.1109/TC.2020.2986963, table 4, and the profiles published with it, whose
times differ from the table's by 1 us in places and are used here; T. T. Sung and B. Ryu, "SoCRATES" (arXiv
2104.14354), and its published job files Top_1 to Top_10 for the 3-device chip of Topcuoglu et al. (2002).
Times are microseconds, volumes bytes, bandwidths bytes per microsecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError

__all__ = [
    "KERNEL_US",
    "MIX_ORDER",
    "soc_3pe",
    "soc_3pe_jobs",
    "soc_16pe",
    "soc_16pe_jobs",
    "stream_3pe",
    "stream_16pe",
]

_US = 1e-6

# Volumes along the edges of SoCRATES's ten jobs, tasks numbered from 0: "source target bytes" separated by commas.
_TOP_EDGES = (
    "0 1 18,0 2 12,0 3 9,0 4 11,0 5 14,1 7 19,1 8 16,2 6 23,3 7 27,3 8 23,4 8 13,5 7 15,6 9 17,7 9 11,8 9 13",
    "0 1 18,0 2 12,0 3 9,0 4 11,1 5 14,1 6 19,2 5 16,3 6 23,3 7 27,4 7 23,5 8 13,6 8 15,7 9 11,8 9 13",
    "0 1 18,0 2 12,0 3 9,0 4 11,1 5 14,2 6 19,3 5 16,4 6 23,5 7 27,6 8 23,7 9 13,8 9 15",
    "0 1 18,0 2 12,1 4 9,1 6 11,2 3 14,2 5 19,2 6 16,3 7 23,4 7 27,5 8 13,6 7 23,7 9 15,8 9 17",
    "0 1 18,0 2 12,0 3 9,2 4 11,1 5 14,3 5 19,2 6 16,1 7 23,3 7 27,4 8 23,5 8 13,6 9 15,7 9 17,8 9 11",
    "0 1 18,0 2 12,1 3 9,2 4 11,1 5 14,2 5 19,2 6 16,2 7 23,2 8 27,3 9 23,4 9 19,5 9 16,6 9 23,7 9 27,8 9 23",
    "0 1 18,0 2 12,0 3 9,0 4 11,1 5 14,3 6 19,1 7 16,2 7 23,2 8 27,4 8 23,5 9 17,6 9 11,7 9 13,8 9 18",
    "0 1 18,0 2 12,0 3 9,0 4 11,0 5 14,0 6 19,2 7 16,1 8 23,3 8 27,4 9 23,5 9 13,6 9 15,7 9 17,8 9 11",
    "0 1 18,0 2 12,0 3 9,0 4 11,0 5 14,3 6 19,1 7 16,3 7 23,2 8 27,5 8 23,4 9 13,6 9 15,7 9 17,8 9 11",
    "0 1 18,0 2 12,0 3 9,0 4 11,1 5 14,2 5 19,1 6 16,4 6 23,3 7 27,4 7 23,4 8 13,5 9 15,6 9 17,7 9 11,8 9 13",
)

_TYPES = ("A7", "A15", "MM", "FFT", "VIT")
_COUNTS = (4, 4, 2, 4, 2)

# Kernel: microseconds on A7, A15 and, where a type of accelerator runs it, that type and its microseconds.
KERNEL_US: Mapping[str, tuple[float, float] | tuple[float, float, str, float]] = MappingProxyType(
    {
        # WiFi transmitter
        "scrambler_encoder": (22, 10),
        "interleaver": (10, 4),
        "qpsk": (15, 8),
        "pilot_insertion": (5, 3),
        "ifft": (296, 118, "FFT", 16),
        "crc": (5, 3),
        "end": (0, 0),
        # WiFi receiver
        "match_filter": (16, 5),
        "payload_extraction": (8, 4),
        "fft": (289, 114, "FFT", 12),
        "pilot": (6, 4),
        "qpsk_demodulation": (191, 95),
        "deinterleaver": (16, 9),
        "format_conversion": (7, 4),
        "viterbi_decoder": (1828, 739, "VIT", 2),
        "descrambler": (3, 2),
        "message_decode": (90, 39),
        # Range detection
        "ST": (0, 0),
        "LFM": (90, 60),
        "xcorr_fft": (150, 60, "FFT", 30),
        "xcorr_vector_complex_conj_mul": (75, 6),
        "xcorr_ifft": (150, 60, "FFT", 30),
        "max_detect": (20, 20),
        # Temporal interference mitigation
        "start_task": (0, 0),
        "cover_signal": (0, 0),
        "message_signal": (0, 0),
        "hermitian_opt": (23, 6),
        "CMM_1": (240, 54, "MM", 22),
        "CMM_2": (240, 54, "MM", 22),
        "CMM_3": (210, 44, "MM", 22),
        "matrix_opts": (25, 8),
        "matrix_multiplication": (17, 5),
        "matrix_subtraction": (72, 16),
        # Pulse-Doppler radar
        "doppler_fft": (35, 15, "FFT", 6),
        "doppler_ifft": (35, 15, "FFT", 6),
        "vector_multiplication": (100, 35),
        "amplitude": (70, 40),
        "fft_shift": (7, 3),
        "barrier": (0, 0),
    }
)

# Order of the shares in ``stream_16pe``'s mix.
MIX_ORDER = ("wifi-tx", "wifi-rx", "range-detection", "temporal-mitigation", "pulse-doppler")

_Edge = tuple[int, int, float]  # source, target, bytes
_Step = tuple[str, float]  # kernel and the bytes that come from the step before


@cache
def soc_3pe() -> Platform:
    """Return the chip with three single-core processors of different types and 1 byte per us between them.

    They draw 0.05885 W at their only operating point, as in DS3's profile of this chip.
    """
    state = PowerState(name="1000 MHz", power_w=0.05885)
    names = ("P1", "P2", "P3")
    link = Link(latency_s=0.0, bandwidth_bytes_per_s=1.0 / _US)
    return Platform(
        devices=tuple(Device(name=name, power_states=(state,)) for name in names),
        counts=(1, 1, 1),
        links={(source, target): link for source in names for target in names if source != target},
    )


@cache
def soc_3pe_jobs() -> tuple[TaskGraph, ...]:
    """Return SoCRATES's jobs Top_1 to Top_10: ten graphs of ten tasks each; Top_1 is Topcuoglu's."""
    duration = canonical().graphs[0].duration
    graphs = []
    for number, text in enumerate(_TOP_EDGES, start=1):
        table = np.array([[int(value) for value in edge.split()] for edge in text.split(",")])
        graphs.append(
            TaskGraph(
                name=f"top-{number}",
                task_names=tuple(f"task_{task}" for task in range(1, 11)),
                duration=duration,
                edge=table[:, :2],
                edge_bytes=table[:, 2],
            )
        )
    return tuple(graphs)


@cache
def soc_16pe() -> Platform:
    """Return DS3's 16-device chip: A7 x4, A15 x4, matrix multiplier x2, FFT x4 and Viterbi decoder x2.

    Power is that of one busy core at the highest frequency and at 1 GHz. It is counted per core here; in the
    profile, whose four busy cores draw 0.81 W (A7) and 6.91 W (A15), it rises less than that.
    """
    states = {
        "A7": (_state(1400, 1400, 0.39), _state(1000, 1400, 0.19)),
        "A15": (_state(2000, 2000, 3.32), _state(1000, 2000, 0.85)),
        "MM": (_state(1000, 1000, 0.05),),
        "FFT": (_state(1000, 1000, 0.0913),),
        "VIT": (_state(1000, 1000, 0.05885),),
    }
    slow = {"A7", "A15", "MM"}
    links = {}
    for source in _TYPES:
        for target in _TYPES:
            narrow = (source == "FFT" and target in slow) or (target == "FFT" and source in slow)
            links[source, target] = Link(latency_s=0.0, bandwidth_bytes_per_s=(10.0 if narrow else 1000.0) / _US)
    devices = tuple(Device(name=name, power_states=states[name]) for name in _TYPES)
    return Platform(devices=devices, counts=_COUNTS, links=links)


def _state(mhz: int, full_mhz: int, power_w: float) -> PowerState:
    return PowerState(name=f"{mhz} MHz", power_w=power_w, speed=mhz / full_mhz)


@cache
def soc_16pe_jobs() -> Mapping[str, TaskGraph]:
    """Return the jobs of the 16-device chip by the names of ``MIX_ORDER``.

    The first four are as DS3 publishes them. Of Pulse-Doppler only the kernels' times are public: its graph is a
    reconstruction, see ``_pulse_doppler``.
    """
    jobs = (_wifi_transmitter(), _wifi_receiver(), _range_detection(), _temporal_mitigation(), _pulse_doppler())
    return MappingProxyType({name: _graph(name, *job) for name, job in zip(MIX_ORDER, jobs, strict=True)})


def _wifi_transmitter() -> tuple[list[str], list[_Edge]]:
    chain = [("interleaver", 2000), ("qpsk", 3000), ("pilot_insertion", 3000), ("ifft", 10), ("crc", 80)]
    kernels, edges = _parallel("scrambler_encoder", chain, 5, [("end", 0)])
    edges[-1] = (*edges[-1][:2], 3)  # the published file has 3 bytes here and 0 in the other chains
    return kernels, edges


def _wifi_receiver() -> tuple[list[str], list[_Edge]]:
    chain = [("payload_extraction", 3000), ("fft", 30), ("pilot", 80)]
    chain += [("qpsk_demodulation", 3000), ("deinterleaver", 3000), ("format_conversion", 3000)]
    tail = [("viterbi_decoder", 3000), ("descrambler", 3000), ("message_decode", 3000)]
    return _parallel("match_filter", chain, 5, tail)


def _range_detection() -> tuple[list[str], list[_Edge]]:
    kernels = ["ST", "LFM", "xcorr_fft", "xcorr_fft", "xcorr_vector_complex_conj_mul", "xcorr_ifft", "max_detect"]
    return kernels, [(0, 1, 1), (1, 2, 1), (0, 3, 1), (3, 4, 150), (2, 4, 150), (4, 5, 1), (5, 6, 150)]


def _temporal_mitigation() -> tuple[list[str], list[_Edge]]:
    kernels = ["start_task", "cover_signal", "message_signal", "hermitian_opt", "CMM_1", "CMM_2"]
    kernels += ["matrix_opts", "matrix_multiplication", "CMM_3", "matrix_subtraction"]
    pairs = [(0, 1), (0, 2), (1, 3), (1, 4), (3, 4), (2, 5), (3, 5), (4, 6), (5, 7), (6, 7), (7, 8), (8, 9)]
    return kernels, [(source, target, 1) for source, target in pairs]


def _pulse_doppler(pulses: int = 64, bins: int = 64) -> tuple[list[str], list[_Edge]]:
    """Return the textbook pulse-Doppler chain from the kernels of DS3's table 4; its shape is a reconstruction.

    Each pulse is compressed in the frequency domain: an FFT of it and one of the reference, their product, an
    inverse FFT. Once all are there (a barrier of no time), each range bin takes an FFT over the pulses, the
    shift that centres it, and the amplitude. The volumes are not public and are 0 here. One job takes 1057 us
    under earliest-finish list scheduling, and 1045 us in the paper's table 5.
    """
    kernels, edges = ["barrier"], []
    compress = [("doppler_fft", 0), ("doppler_fft", 0), ("vector_multiplication", 0), ("doppler_ifft", 0)]
    for _ in range(pulses):
        first = len(kernels)
        kernels += [kernel for kernel, _ in compress]
        edges += [(0, first, 0.0), (0, first + 1, 0.0), (first, first + 2, 0.0), (first + 1, first + 2, 0.0)]
        edges.append((first + 2, first + 3, 0.0))
    middle = len(kernels)
    kernels.append("barrier")
    edges += [(1 + 4 * pulse + 3, middle, 0.0) for pulse in range(pulses)]
    chain: list[_Step] = [("doppler_fft", 0), ("fft_shift", 0), ("amplitude", 0)]
    rest, rest_edges = _parallel("barrier", chain, bins, [("barrier", 0)])
    kernels += rest[1:]
    edges += [(source + middle, target + middle, size) for source, target, size in rest_edges]
    return kernels, edges


def _parallel(head: str, chain: Sequence[_Step], copies: int, tail: Sequence[_Step]) -> tuple[list[str], list[_Edge]]:
    """Return kernels and edges of a head, parallel copies of a chain, and a tail chain that joins them."""
    kernels, edges, ends = [head], [], []
    for _ in range(copies):
        before = 0
        for kernel, size in chain:
            edges.append((before, len(kernels), float(size)))
            before = len(kernels)
            kernels.append(kernel)
        ends.append(before)
    for kernel, size in tail:
        edges += [(before, len(kernels), float(size)) for before in ends]
        ends = [len(kernels)]
        kernels.append(kernel)
    return kernels, edges


def _graph(name: str, kernels: Sequence[str], edges: Sequence[_Edge]) -> TaskGraph:
    duration = np.full((len(kernels), len(_TYPES)), np.inf)
    names = []
    for task, kernel in enumerate(kernels):
        cost = KERNEL_US[kernel]
        duration[task, :2] = cost[:2]
        if len(cost) == 4:
            duration[task, _TYPES.index(cost[2])] = cost[3]
        names.append(f"{kernel}_{kernels[: task + 1].count(kernel)}" if kernels.count(kernel) > 1 else kernel)
    return TaskGraph(
        name=name,
        task_names=tuple(names),
        duration=duration,
        edge=np.array([edge[:2] for edge in edges]),
        edge_bytes=np.array([edge[2] for edge in edges], dtype=np.float64),
    )


def stream_3pe(
    rng: np.random.Generator,
    *,
    jobs: int = 100,
    scale: float = 50.0,
    noise_sigma: float = 0.0,
    admission_cap: int = 3,
    templates: str = "top-1",
    name: str | None = None,
) -> SocDagInstance:
    """Draw a stream of SoCRATES's jobs on the 3-device chip.

    Gaps between jobs are exponential, rounded down to whole microseconds. With an admission cap the system
    starts full: as many jobs as it admits are there at time 0. Draws do not depend on ``scale``,
    ``noise_sigma`` and ``admission_cap``, so instances that differ in these share their randomness.

    Args:
        rng: Source of randomness.
        jobs: Number of jobs, at least 1.
        scale: Mean gap between jobs in microseconds, above 0.
        noise_sigma: Standard deviation of the relative error of the expected durations.
        admission_cap: Most jobs in the system; 0 for an open-loop Poisson stream that starts empty.
        templates: ``top-1`` to ``top-10``, or ``all`` for a uniform mixture of the ten.
        name: Name of the instance.

    Raises:
        ConfigError: a value outside its range.
    """
    _check_stream(jobs, scale, noise_sigma, admission_cap)
    graphs = {graph.name: graph for graph in soc_3pe_jobs()}
    if templates not in (*graphs, "all"):
        raise ConfigError(f"option templates: {templates!r}, expected top-1 to top-10 or all")
    release = _releases(rng, jobs, scale, prefilled=admission_cap)
    chosen = tuple(graphs.values()) if templates == "all" else (graphs[templates],)
    return SocDagInstance(
        name=name or f"stream-3pe-{jobs}",
        platform=soc_3pe(),
        graphs=chosen,
        job_graph=rng.integers(len(chosen), size=jobs).astype(np.int32),
        release=release,
        admission_cap=admission_cap,
        noise_sigma=noise_sigma,
        noise=rng.standard_normal(10 * jobs),
        whole_units=True,
        time_unit_s=_US,
    )


def stream_16pe(
    rng: np.random.Generator,
    *,
    jobs: int = 100,
    scale: float = 300.0,
    noise_sigma: float = 0.0,
    admission_cap: int = 12,
    mix: str = ".3/.3/.3/.1",
    name: str | None = None,
) -> SocDagInstance:
    """Draw a stream of wireless and radar jobs on DS3's 16-device chip, which starts empty.

    Gaps between jobs are exponential, rounded down to whole microseconds. Jobs are as many of each kind as the
    mix says, in random order, so that instances of equal options have equal sizes (DS3 draws each
    independently). Draws do not depend on ``scale``, ``noise_sigma`` and ``admission_cap``.

    Args:
        rng: Source of randomness.
        jobs: Number of jobs, at least 1.
        scale: Mean gap between jobs in microseconds, above 0.
        noise_sigma: Standard deviation of the relative error of the expected durations.
        admission_cap: Most jobs in the system; 0 for an open-loop Poisson stream.
        mix: Shares of the jobs in ``MIX_ORDER``, up to five numbers separated by slashes; they need not sum to 1.
        name: Name of the instance.

    Raises:
        ConfigError: a value outside its range.
    """
    _check_stream(jobs, scale, noise_sigma, admission_cap)
    count = _counts(mix, jobs)
    release = _releases(rng, jobs, scale, prefilled=0)
    used = np.flatnonzero(count)
    graphs = tuple(soc_16pe_jobs()[MIX_ORDER[k]] for k in used)
    job_graph = rng.permutation(np.repeat(np.arange(len(used), dtype=np.int32), count[used]))
    return SocDagInstance(
        name=name or f"stream-16pe-{jobs}",
        platform=soc_16pe(),
        graphs=graphs,
        job_graph=job_graph,
        release=release,
        admission_cap=admission_cap,
        noise_sigma=noise_sigma,
        noise=rng.standard_normal(sum(graphs[k].tasks for k in job_graph)),
        whole_units=True,
        time_unit_s=_US,
    )


def _check_stream(jobs: int, scale: float, noise_sigma: float, admission_cap: int) -> None:
    if jobs < 1:
        raise ConfigError(f"option jobs: {jobs}, expected at least 1")
    if not 0.0 < scale < np.inf:
        raise ConfigError(f"option scale: {scale}, expected a positive number of microseconds")
    if not 0.0 <= noise_sigma < np.inf:
        raise ConfigError(f"option noise_sigma: {noise_sigma}, expected 0 or more")
    if admission_cap < 0:
        raise ConfigError(f"option admission_cap: {admission_cap}, expected 0 or more")


def _releases(rng: np.random.Generator, jobs: int, scale: float, *, prefilled: int) -> F64:
    gap = np.floor(scale * rng.standard_exponential(jobs))
    gap[:prefilled] = 0.0
    release: F64 = np.cumsum(gap)
    return release


def _counts(mix: str, jobs: int) -> I32:
    """Return (5,) jobs of each kind, the largest remainders rounded up."""
    try:
        share = np.array([float(part) for part in mix.split("/")])
    except ValueError:
        raise ConfigError(f"option mix: {mix!r}, expected numbers separated by slashes") from None
    valid = len(share) <= len(MIX_ORDER) and np.isfinite(share).all() and (share >= 0).all() and share.sum() > 0
    if not valid:
        raise ConfigError(f"option mix: {mix!r}, expected up to {len(MIX_ORDER)} shares of 0 or more, not all 0")
    # Rounding keeps equal shares of equal remainders in their order whatever the last bits of the quotient.
    exact = np.round(jobs * share / share.sum(), 9)
    count = np.floor(exact).astype(np.int32)
    left = jobs - int(count.sum())
    count[np.argsort(count - exact, kind="stable")[:left]] += 1
    return np.pad(count, (0, len(MIX_ORDER) - len(count))).astype(np.int32)
