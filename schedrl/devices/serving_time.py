"""How long one iteration of continuous batching takes on a device, as a row of coefficients and a kernel over it.

Linear layers take the smooth roofline (the 2-norm of computing and reading weights) plus an overhead per layer;
attention adds the time to read keys and values and to multiply; norms, rotary embedding and activation add a time per
token; tensor parallelism adds two all-reduces per layer; the output projection is one more roofline; the host adds a
constant. All terms but the all-reduce and the overheads are divided among the devices of a tensor-parallel group. The
form and its error on measured operators: ``schedrl devices validate``.

Attention kernels that take prompts and decoding requests in one call cut every request into as many tiles of queries as
the longest prompt needs, so a request that decodes beside a prompt takes longer than one that decodes among its like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64
from schedrl.devices.language_model import LanguageModel
from schedrl.devices.platform import Device
from schedrl.errors import ConfigError
from schedrl.kernels import inlined

__all__ = ["ALL_REDUCE", "COEFFICIENTS", "ServingRates", "iteration_s", "plain_iteration_s", "serving_coefficients"]

# Columns of a row of coefficients, all in seconds but ``EXPERT_MISS``.
TOKEN, WEIGHTS, EXPERT_WEIGHTS, EXPERT_MISS, OVERHEAD, CONTEXT, PAIR, HEAD_TOKEN, HEAD_WEIGHTS = range(9)
MIXED_CONTEXT, MIXED_SEQUENCE, MIXED_TOKEN, ELEMENTWISE = range(9, 13)
# Of iterations with a prompt and other requests: per key and value, per other request, and per such and token; last,
# per token of any iteration.
ALL_REDUCE = 13
"""first of the columns with the time of a layer's all-reduces at 1, 2, 4, ... tokens"""
_DOUBLINGS = 15
COEFFICIENTS = ALL_REDUCE + _DOUBLINGS
"""columns of a row"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRates:
    """What serving adds to a device's figures: shares of its peaks that attention reaches, and the host's time.

    Raises:
        ConfigError: a share outside (0, 1.5], or a negative time.
    """

    attention_mbu: float = 0.8
    """share of the peak bandwidth at which decoding reads keys and values"""
    attention_mfu: float = 0.6
    """share of the peak rate that attention of long prompts reaches"""
    attention_overhead_s: float = 0.0
    """seconds that the attention of a layer takes however little it has to do"""
    host_s: float = 0.0
    """seconds of every iteration in which the device waits for the host"""
    mixed_attention_mbu: float = 0.0
    """share of the peak bandwidth at which decoding reads keys and values beside prompts, 0 for ``attention_mbu``"""
    mixed_sequence_s: float = 0.0
    """seconds per layer and head that another request costs beside a prompt"""
    mixed_tile_s: float = 0.0
    """seconds per layer and head that it costs for each token of the iteration"""
    elementwise_mbu: float = 0.0
    """share of the peak bandwidth that norms, rotary embedding and activation reach, above 1 from caches; 0 leaves them
    out"""
    elementwise_overhead_s: float = 0.0
    """seconds that these take in a layer however few tokens there are"""

    def __post_init__(self) -> None:
        for field in ("attention_mbu", "attention_mfu"):
            if not 0.0 < getattr(self, field) <= 1.5:
                raise ConfigError(f"serving rates: field {field}: {getattr(self, field)!r}, expected 0 to 1.5")
        for field in ("mixed_attention_mbu", "elementwise_mbu"):
            if not 0.0 <= getattr(self, field) <= 3.0:
                raise ConfigError(f"serving rates: field {field}: {getattr(self, field)!r}, expected 0 to 3")
        for field in (
            "attention_overhead_s", "host_s", "mixed_sequence_s", "mixed_tile_s", "elementwise_overhead_s"
        ):  # fmt: skip
            if not 0.0 <= getattr(self, field) < math.inf:
                raise ConfigError(f"serving rates: field {field}: {getattr(self, field)!r}, expected at least 0")


def serving_coefficients(
    device: Device,
    model: LanguageModel,
    *,
    tensor_parallel: int = 1,
    rates: ServingRates | None = None,
    all_reduce_s: F64 | None = None,
    precision: str = "bf16",
) -> F64:
    """Return the coefficients (28,) of ``iteration_s`` for a model on a group of devices.

    Args:
        device: needs a rate of the precision, a memory bandwidth, and fitted ``mfu``, ``mbu`` and overhead per layer.
        model: the model that is served.
        tensor_parallel: devices that share each layer.
        rates: attention and host figures; the defaults of ``ServingRates`` otherwise.
        all_reduce_s: (15,) seconds of one all-reduce of the activations of 1, 2, 4, ..., 16384 tokens within the group;
            needed if ``tensor_parallel`` exceeds 1.
        precision: which rate of the device applies.

    Raises:
        ConfigError: a figure that the device lacks, or a group without ``all_reduce_s``.
    """
    where = f"device {device.name}"
    if type(tensor_parallel) is not int or tensor_parallel < 1:
        raise ConfigError(f"{where}: tensor_parallel: {tensor_parallel!r}, expected an integer of at least 1")
    if precision not in device.flops_per_s:
        raise ConfigError(f"{where}: field flops_per_s: no figure for {precision!r}")
    if device.memory_bandwidth_bytes_per_s is None:
        raise ConfigError(f"{where}: field memory_bandwidth_bytes_per_s: not set, needed to serve")
    if tensor_parallel > 1 and (all_reduce_s is None or np.shape(all_reduce_s) != (_DOUBLINGS,)):
        raise ConfigError(f"{where}: all_reduce_s: expected {_DOUBLINGS} times for a group of {tensor_parallel}")
    rates = rates or ServingRates()
    peak, bandwidth = device.flops_per_s[precision], device.memory_bandwidth_bytes_per_s
    compute, memory = 1.0 / (device.mfu * peak * tensor_parallel), 1.0 / (device.mbu * bandwidth * tensor_parallel)
    active = model.attention_weights + model.experts_per_token * model.expert_weights
    dense = model.attention_weights + (model.expert_weights if model.experts == 1 else 0)
    row = np.zeros(COEFFICIENTS)
    row[TOKEN] = 2.0 * model.layers * active * compute
    row[WEIGHTS] = model.layers * dense * model.bytes_per_weight * memory
    if model.experts > 1:
        row[EXPERT_WEIGHTS] = model.layers * model.experts * model.expert_weights * model.bytes_per_weight * memory
        # Share of the experts that a token misses; all are read if each token takes all.
        missed = 1.0 - model.experts_per_token / model.experts
        row[EXPERT_MISS] = math.log(missed) if missed > 0.0 else -1e3
    overhead = device.operation_overhead_s + rates.attention_overhead_s + rates.elementwise_overhead_s
    row[OVERHEAD] = model.layers * overhead + rates.host_s
    row[CONTEXT] = model.kv_bytes_per_token / (rates.attention_mbu * bandwidth * tensor_parallel)
    row[PAIR] = 4.0 * model.layers * model.heads * model.head_size / (rates.attention_mfu * peak * tensor_parallel)
    if rates.mixed_attention_mbu > 0.0:
        slower = model.kv_bytes_per_token / (rates.mixed_attention_mbu * bandwidth * tensor_parallel) - row[CONTEXT]
        row[MIXED_CONTEXT] = max(slower, 0.0)
    heads = model.layers * model.heads / tensor_parallel
    row[MIXED_SEQUENCE], row[MIXED_TOKEN] = heads * rates.mixed_sequence_s, heads * rates.mixed_tile_s
    if rates.elementwise_mbu > 0.0:
        row[ELEMENTWISE] = (
            model.layers * _elementwise_bytes(model, tensor_parallel) / (rates.elementwise_mbu * bandwidth)
        )
    row[HEAD_TOKEN] = 2.0 * model.head_weights * compute
    row[HEAD_WEIGHTS] = model.head_weights * model.bytes_per_weight * memory
    if tensor_parallel > 1:
        row[ALL_REDUCE:] = 2.0 * model.layers * np.asarray(all_reduce_s, dtype=np.float64)
    return row


def _elementwise_bytes(model: LanguageModel, tensor_parallel: int) -> float:
    """Return the bytes of 16-bit numbers that a token moves through a layer outside its matrix products."""
    # Both norms read and write the token and the residual stream, on every device of a group.
    norms = 2 * 4 * model.hidden
    rotary = 2 * (model.heads + model.kv_heads) * model.head_size
    activation = 3 * model.intermediate * model.experts_per_token
    return 2.0 * (norms + (rotary + activation) / tensor_parallel)


@inlined
def iteration_s(row: F64, tokens: int, sequences: int, context: float, pairs: float) -> float:
    """Return the seconds of an iteration.

    Args:
        row: (28,) of ``serving_coefficients``.
        tokens: that pass through the layers.
        sequences: requests that have at least one of them.
        context: keys and values read: the sum, over these requests, of tokens computed before and now.
        pairs: the sum, over these requests, of its new tokens n times (tokens before + n / 2).
    """
    compute = row[TOKEN] * tokens
    weights = row[WEIGHTS]
    if row[EXPERT_WEIGHTS] > 0.0:
        weights += row[EXPERT_WEIGHTS] * (1.0 - math.exp(row[EXPERT_MISS] * tokens))
    head_compute, head_weights = row[HEAD_TOKEN] * sequences, row[HEAD_WEIGHTS]
    seconds: float = math.sqrt(compute * compute + weights * weights)
    seconds += math.sqrt(head_compute * head_compute + head_weights * head_weights)
    seconds += row[OVERHEAD] + row[CONTEXT] * context + row[PAIR] * pairs
    seconds += row[ELEMENTWISE] * tokens
    if tokens > sequences > 1:
        seconds += row[MIXED_CONTEXT] * context + (row[MIXED_SEQUENCE] + row[MIXED_TOKEN] * tokens) * (sequences - 1)
    if row[ALL_REDUCE] > 0.0:
        # Between powers of two the time grows linearly; beyond the last, in proportion to its last step.
        k, power = 0, 1
        while k < _DOUBLINGS - 2 and tokens > 2 * power:
            k += 1
            power *= 2
        low, high = row[ALL_REDUCE + k], row[ALL_REDUCE + k + 1]
        seconds += low + (high - low) * (tokens - power) / power
    return seconds


def plain_iteration_s(row: F64, tokens: int, sequences: int, context: float, pairs: float) -> float:
    """Return ``iteration_s`` without compiling it, for the few calls that a fleet needs."""
    plain = getattr(iteration_s, "py_func", iteration_s)
    return float(plain(row, tokens, sequences, context, pairs))
