"""Exchanges as DeepEP's low-latency kernels make them: presets fitted to its published table.

The table (DeepEP, docs/legacy.md) gives microseconds on H800 with NVLink of about 160 GB/s inside nodes of eight and
RDMA of 50 GB/s between them, for 128 tokens per device to 8 experts each, hidden size 7168. Dispatch sends FP8 values
with a four-byte scale per 128 of them (7,392 bytes per token), combine BF16 values (14,336 bytes). Inside a node the
bandwidth is taken as given and the latency fitted to EP 8; between nodes latency and efficiency minimise the largest
error over EP 16 to EP 256: 2.4 % for dispatch, 4.7 % for combine.
"""

from __future__ import annotations

from schedrl.envs.moe.timing import AllToAll, LayerTiming

__all__ = ["LOW_LATENCY_COMBINE", "LOW_LATENCY_DISPATCH", "LOW_LATENCY_TABLE_US", "low_latency_timing"]

LOW_LATENCY_TABLE_US = {
    8: (77.0, 114.0),
    16: (118.0, 195.0),
    32: (155.0, 273.0),
    64: (173.0, 314.0),
    128: (192.0, 369.0),
    256: (194.0, 360.0),
}
"""published microseconds of dispatch and combine by number of devices"""

LOW_LATENCY_DISPATCH = AllToAll(
    bytes_per_value=1.0 + 4.0 / 128.0, intra_latency_s=35.6e-6, inter_latency_s=32.6e-6, inter_efficiency=0.917
)
# The published combine times grow with the volume as if there were no latency between nodes.
LOW_LATENCY_COMBINE = AllToAll(
    bytes_per_value=2.0, intra_latency_s=33.7e-6, inter_latency_s=0.5e-6, inter_efficiency=0.7835
)


def low_latency_timing(*, expert_overhead_s: float = 3e-6) -> LayerTiming:
    """Return a time model with these exchanges: a token travels once per expert it chose, and returns home."""
    return LayerTiming(dispatch=LOW_LATENCY_DISPATCH, combine=LOW_LATENCY_COMBINE, expert_overhead_s=expert_overhead_s)
