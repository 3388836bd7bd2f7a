"""Agentic workflows: programs of stages with tools between them, parallel branches, deadlines and priorities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.routing.session_generators import BlockIds, Turn, lognormal_tokens, popularity, require, workload_of
from schedrl.envs.routing.workload import Workload

__all__ = ["TOOLS", "Tool", "agentic"]

_LONGEST_TRUNK = 20_000
# Nominal speeds, about those of an A100 under load with a model of 7 billion parameters: seconds per token of prompt
# and answer, and of waiting. Deadlines are multiples of the time that a workflow would take at them.
_PREFILL_S, _DECODE_S, _WAIT_S = 1.0 / 12_000, 0.015, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What an agent calls between two stages: its log-normal duration and the size of what it returns."""

    name: str
    median_s: float
    sigma: float
    result_tokens: int
    """median, log-normal with sigma 0.8"""


TOOLS = (
    Tool(name="look-up", median_s=0.05, sigma=0.5, result_tokens=120),
    Tool(name="database", median_s=0.3, sigma=0.8, result_tokens=250),
    Tool(name="search", median_s=1.0, sigma=0.6, result_tokens=900),
    Tool(name="shell", median_s=0.6, sigma=1.2, result_tokens=300),
    Tool(name="browser", median_s=3.0, sigma=0.8, result_tokens=1500),
    Tool(name="test run", median_s=8.0, sigma=1.0, result_tokens=600),
)
"""tools by the number in ``RoutingInstance.tool``; durations span what agents wait for, they are not measurements"""


def agentic(
    rng: np.random.Generator,
    *,
    requests: int = 256,
    requests_per_s: float = 10.0,
    stages: int = 8,
    branches: int = 4,
    deadline_share: float = 0.7,
    tenants: int = 4,
    block_tokens: int = 64,
) -> Workload:
    """Draw workflows under way: each stage waits for the branches before it and for a tool, and repeats what they said.

    A program has 2 to ``stages`` stages; three in ten of them have 2 to ``branches`` parallel branches. All programs
    of a tenant share a system prompt and a liking for some of the ``TOOLS``. Deadlines are 1.2 to 4 times what the
    rest of a program takes at nominal speeds; priorities are 0 to 2.

    Args:
        rng: Source of randomness.
        requests: How many.
        requests_per_s: Mean rate at nominal speeds.
        stages: Most stages of a program.
        branches: Most parallel branches of a stage.
        deadline_share: Share of the programs with a deadline.
        tenants: Number of tenants; Zipf's law chooses among them.
        block_tokens: Tokens of a block of a prefix.

    Raises:
        ConfigError: a value outside its range.
    """
    require(requests=(requests, 1, 10**7), requests_per_s=(requests_per_s, 1e-6, 1e6), stages=(stages, 2, 1000))
    require(branches=(branches, 1, 1000), deadline_share=(deadline_share, 0, 1), tenants=(tenants, 1, 10**5))
    ids = BlockIds(block_tokens)
    prompts = [lognormal_tokens(rng, 1200, 0.5, 8192) for _ in range(tenants)]
    prefixes = [ids.grown([], tokens) for tokens in prompts]
    liking = np.cumsum(rng.dirichlet(np.ones(len(TOOLS)), size=tenants), axis=1)
    span_s, before_s = requests / requests_per_s, min(4.0 * stages, 2.0 * requests / requests_per_s)
    shares = np.cumsum(popularity(tenants))
    drawn: list[Turn] = []
    deadlines: list[float] = []
    while len(drawn) < requests:
        tenant = min(int(np.searchsorted(shares, rng.random())), tenants - 1)
        shape = _stage_widths(rng, stages, branches)
        program = _program(rng, ids, (prompts[tenant], prefixes[tenant]), shape, liking[tenant])
        start_s = float(rng.uniform(-before_s, span_s))
        slack = math.exp(rng.uniform(math.log(1.2), math.log(4.0))) if rng.random() < deadline_share else math.inf
        priority = int(rng.integers(3))
        kept = [turn for turn in program if 0.0 <= turn.arrival_s + start_s < span_s][: requests - len(drawn)]
        there = {id(turn) for turn in kept}
        for turn in kept:
            turn.arrival_s += start_s
            turn.after = [before for before in turn.after if id(before) in there]
            if not turn.after:
                turn.pause_s, turn.tool = 0.0, -1
            turn.program, turn.tenant, turn.priority = len(deadlines), tenant, priority
        if kept:
            finish_s = max(turn.arrival_s + _nominal_s(turn) for turn in kept)
            deadlines.append(slack * (finish_s - kept[0].arrival_s))
            drawn += kept
    return workload_of(drawn, block_tokens, deadlines)


def _stage_widths(rng: np.random.Generator, stages: int, branches: int) -> list[int]:
    """Draw how many branches each stage has."""
    count = int(rng.integers(2, stages, endpoint=True))
    wide = (rng.random(count) < 0.3) & (branches > 1)
    return [int(rng.integers(2, branches, endpoint=True)) if width else 1 for width in wide]


def _program(
    rng: np.random.Generator, ids: BlockIds, prefix: tuple[int, list[int]], widths: Sequence[int], liking: F64
) -> list[Turn]:
    """Draw the requests of a program that begins at 0, stage after stage."""
    trunk, blocks = prefix
    trunk += lognormal_tokens(rng, 200, 1.0, 4096)
    blocks = ids.grown(blocks, trunk)
    turns: list[Turn] = []
    before: list[Turn] = []
    ready_s = 0.0
    for width in widths:
        stage = []
        for _ in range(width):
            number = _tool(rng, liking) if before else -1
            pause_s = TOOLS[number].median_s * math.exp(TOOLS[number].sigma * rng.standard_normal())
            prompt, output = trunk + lognormal_tokens(rng, 60, 0.8, 2048), lognormal_tokens(rng, 150, 0.9, 2048)
            stage.append(
                Turn(
                    arrival_s=ready_s + (pause_s if before else 0.0),
                    prompt_tokens=prompt,
                    output_tokens=output,
                    program=0,
                    blocks=ids.grown(blocks, prompt + output),
                    after=before,
                    pause_s=pause_s if before else 0.0,
                    tool=number,
                )
            )
        turns += stage
        ready_s = max(turn.arrival_s + _nominal_s(turn) for turn in stage)
        # The next stage goes on from the first branch, and is told what the others and the tool said.
        said = sum(turn.output_tokens for turn in stage[1:])
        result = lognormal_tokens(rng, TOOLS[_tool(rng, liking)].result_tokens, 0.8, 8192)
        trunk = stage[0].prompt_tokens + stage[0].output_tokens + said + result
        blocks, before = ids.grown(stage[0].blocks, trunk), stage
        if trunk > _LONGEST_TRUNK:
            break
    return turns


def _tool(rng: np.random.Generator, liking: F64) -> int:
    """Draw a tool by the cumulated shares of a tenant."""
    return min(int(np.searchsorted(liking, rng.random())), len(TOOLS) - 1)


def _nominal_s(turn: Turn) -> float:
    return _WAIT_S + _PREFILL_S * turn.prompt_tokens + _DECODE_S * turn.output_tokens
