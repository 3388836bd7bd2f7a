"""Workloads with shared prefixes: conversations that wait for each answer, and long prompts like those of Mooncake.

The constants of ``long_context`` are fitted to summaries of the first half of Mooncake's conversation trace (FAST '25,
github.com/kvcache-ai/Mooncake at 3b5a594): 64 % of its requests begin a conversation, with prompts of log-normal
length; some of those that go on edit what was said before, and so share a part of it only; requests arrive in
batches, every 3 s. Evaluation uses the second half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.routing.workload import Workload
from schedrl.errors import ConfigError

__all__ = ["BlockIds", "Turn", "lognormal_tokens", "long_context", "popularity", "require", "sessions", "workload_of"]

_MOST_TOKENS = 1_000_000
# Conversations end before they fill the memory of a small device; a nominal answer takes 10 ms per token.
_LONGEST_TALK = 24_000
_NOMINAL_TPOT_S = 0.01
_THINK_S = 4.0
# First half of the trace: log of the prompts, of the gap between turns in seconds, and quantiles of answers.
_FIRST_PROMPT = (8.79, 1.21)
_GAP_S = (4.836, 0.926)
_LEAST_PROMPT = 891
_CONTINUES = 0.36
_EDITS = 0.2
_LONGEST_PROMPT = 125_000
# Median and sigma of what a turn adds to prompt and answer before it.
_ADDED = (25.0, 2.2)
_TRACE_RATE = 3.2
_OUTPUT_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_OUTPUT_TOKENS = (1, 9, 24, 96, 216, 299, 356, 402, 452, 512, 609, 708, 1134, 2000)


@dataclass(slots=True, kw_only=True)
class Turn:
    """A request as generators draw it."""

    arrival_s: float
    """nominal where there are predecessors: the order, and the time of requests whose predecessors are cut off"""
    prompt_tokens: int
    output_tokens: int
    program: int
    blocks: list[int] = field(default_factory=list)
    after: list[Turn] = field(default_factory=list)
    pause_s: float = 0.0
    priority: int = 0
    tenant: int = 0
    tool: int = -1


class BlockIds:
    """Hands out ids of blocks: each stands for a text from its beginning on, so growing texts keep their ids."""

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._next = 0

    def grown(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Return the ids of the full blocks of ``tokens`` that begin with ``ids``; fewer tokens keep fewer."""
        count = tokens // self.block_tokens
        fresh = max(count - len(ids), 0)
        self._next += fresh
        return [*ids[:count], *range(self._next - fresh, self._next)]


def workload_of(turns: Sequence[Turn], block_tokens: int, deadline_s: Sequence[float] = ()) -> Workload:
    """Return the workload of drawn requests, in order of arrival; programs without a request are left out.

    Args:
        turns: The requests; predecessors come before those they hold up, at the same time or earlier.
        block_tokens: Tokens of a block.
        deadline_s: (P,) deadline of each program, or empty.
    """
    ordered = sorted(turns, key=lambda turn: turn.arrival_s)
    position = {id(turn): r for r, turn in enumerate(ordered)}
    programs, program = np.unique([turn.program for turn in ordered], return_inverse=True)
    after = [[position[id(turn)] for turn in one.after] for one in ordered]
    return Workload(
        arrival_s=np.array([turn.arrival_s for turn in ordered]),
        prompt_tokens=np.array([turn.prompt_tokens for turn in ordered]),
        output_tokens=np.array([turn.output_tokens for turn in ordered]),
        block_start=np.concatenate([[0], np.cumsum([len(turn.blocks) for turn in ordered])]),
        blocks=np.array([block for turn in ordered for block in turn.blocks], dtype=np.int64),
        block_tokens=block_tokens,
        program=program.astype(np.int32),
        deadline_s=np.asarray(deadline_s)[programs] if len(deadline_s) else np.full(len(programs), np.inf),
        after_start=np.concatenate([[0], np.cumsum([len(names) for names in after])]),
        after=np.array([r for names in after for r in names], dtype=np.int32),
        pause_s=np.array([turn.pause_s for turn in ordered]),
        priority=np.array([turn.priority for turn in ordered]),
        tenant=np.array([turn.tenant for turn in ordered]),
        tool=np.array([turn.tool for turn in ordered]),
    )


def require(**options: tuple[float, float, float]) -> None:
    """Refuse options outside their range.

    Raises:
        ConfigError: a value that is not between its least and most; the message names the option.
    """
    for name, (value, least, most) in options.items():
        if not least <= value <= most:
            raise ConfigError(f"option {name}: {value}, expected {least} to {most}")


def lognormal_tokens(rng: np.random.Generator, median: float, sigma: float, most: int = _MOST_TOKENS) -> int:
    """Draw a log-normal number of tokens from 1 to ``most``."""
    return min(max(int(median * math.exp(sigma * rng.standard_normal())), 1), most)


def popularity(count: int, exponent: float = 1.0) -> F64:
    """Return the shares (count,) of a Zipf distribution."""
    weights: F64 = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    weights /= weights.sum()
    return weights


def sessions(
    rng: np.random.Generator,
    *,
    requests: int = 256,
    requests_per_s: float = 10.0,
    turns: float = 5.0,
    think_s: float | None = None,
    system_tokens: int = 1024,
    tenants: int = 4,
    block_tokens: int = 64,
) -> Workload:
    """Draw conversations under way: each turn repeats what was said, waits for the answer, then the user thinks.

    All conversations of a tenant begin with the tenant's system prompt; tenants are chosen by Zipf's law.

    Args:
        rng: Source of randomness.
        requests: How many.
        requests_per_s: Mean rate, if answers take 10 ms per token; conversations slow down with the answers.
        turns: Mean turns of a conversation (geometric), at least 1.
        think_s: Median time between an answer and the next question (log-normal, sigma 0.9); None for 4 s, or less
            where the window is so short that hardly any conversation would go on in it.
        system_tokens: Median system prompt of a tenant (log-normal, sigma 0.7).
        tenants: Number of them.
        block_tokens: Tokens of a block of a prefix.

    Raises:
        ConfigError: a value outside its range.
    """
    require(requests=(requests, 1, 10**7), requests_per_s=(requests_per_s, 1e-6, 1e6), turns=(turns, 1, 1e4))
    span_s = requests / requests_per_s
    think_s = min(_THINK_S, span_s / (2 * turns)) if think_s is None else think_s
    require(think_s=(think_s, 0, 1e6), system_tokens=(system_tokens, 1, 10**5), tenants=(tenants, 1, 10**5))
    ids = BlockIds(block_tokens)
    prompts = [lognormal_tokens(rng, system_tokens, 0.7, 32 * system_tokens) for _ in range(tenants)]
    prefixes = [ids.grown([], tokens) for tokens in prompts]
    # Conversations are under way when the window begins, else it would begin and end with few requests.
    before_s = min(turns * (1.5 * think_s + 2.5), 2 * span_s)
    shares = np.cumsum(popularity(tenants))
    drawn: list[Turn] = []
    program = 0
    while len(drawn) < requests:
        tenant = min(int(np.searchsorted(shares, rng.random())), tenants - 1)
        talk = _conversation(rng, ids, prompts[tenant], prefixes[tenant], (turns, think_s))
        start_s = float(rng.uniform(-before_s, span_s))
        seen: list[Turn] = []
        for turn in talk:
            turn.arrival_s += start_s
            if 0.0 <= turn.arrival_s < span_s:
                turn.program, turn.tenant = program, tenant
                turn.after = seen[-1:]
                turn.pause_s = turn.pause_s if seen else 0.0
                seen.append(turn)
        drawn += seen[: requests - len(drawn)]
        program += 1
    return workload_of(drawn, block_tokens)


def _conversation(
    rng: np.random.Generator, ids: BlockIds, tokens: int, blocks: list[int], habits: tuple[float, float]
) -> list[Turn]:
    """Draw the turns of a conversation that begins at 0; ``habits`` are mean turns and median time to think."""
    turns, think_s = habits
    talk: list[Turn] = []
    clock_s = 0.0
    for turn in range(int(rng.geometric(1.0 / turns))):
        prompt = tokens + lognormal_tokens(rng, 80, 1.2, 8192)
        output = lognormal_tokens(rng, 200, 0.8, 2048)
        if prompt + output > _LONGEST_TALK:
            break
        pause_s = think_s * math.exp(0.9 * rng.standard_normal()) if turn else 0.0
        clock_s += pause_s
        tokens = prompt + output
        blocks = ids.grown(blocks, tokens)
        talk.append(
            Turn(
                arrival_s=clock_s, prompt_tokens=prompt, output_tokens=output, program=0, blocks=blocks, pause_s=pause_s
            )
        )
        clock_s += _NOMINAL_TPOT_S * output
    return talk


def long_context(
    rng: np.random.Generator,
    *,
    requests: int = 256,
    requests_per_s: float = 10.0,
    prompt_cap: int = 20480,
    batch_s: float = 3.0,
    block_tokens: int = 512,
) -> Workload:
    """Draw requests like those of Mooncake's conversations: long prompts, of which a third goes on with earlier ones.

    Turns arrive when the trace says so, whether or not the last is answered. All prompts share their first block.

    Args:
        rng: Source of randomness.
        requests: How many.
        requests_per_s: Rate to which the trace, of 3.2 requests per second, is squeezed or stretched.
        prompt_cap: Longer prompts are cut, as in DualMap's evaluation.
        batch_s: Arrivals come together that often, before squeezing; 0 spreads them.
        block_tokens: Tokens of a block of a prefix.

    Raises:
        ConfigError: a value outside its range.
    """
    require(requests=(requests, 1, 10**7), requests_per_s=(requests_per_s, 1e-6, 1e6), batch_s=(batch_s, 0, 1e4))
    require(prompt_cap=(prompt_cap, 1, _MOST_TOKENS))
    ids = BlockIds(block_tokens)
    common = ids.grown([], block_tokens)
    span_s = requests / _TRACE_RATE
    # Conversations that began before the window are under way in it.
    before_s = min(3 * math.exp(_GAP_S[0]), span_s)
    drawn: list[Turn] = []
    program = 0
    while len(drawn) < requests:
        start_s = float(rng.uniform(-before_s, span_s))
        talk = _long_conversation(rng, ids, common)
        for turn in talk:
            turn.arrival_s += start_s
            if 0.0 <= turn.arrival_s < span_s and len(drawn) < requests:
                turn.arrival_s -= turn.arrival_s % batch_s if batch_s else 0.0
                turn.arrival_s *= _TRACE_RATE / requests_per_s
                turn.prompt_tokens = min(turn.prompt_tokens, prompt_cap)
                turn.blocks = turn.blocks[: turn.prompt_tokens // block_tokens]
                turn.program = program
                drawn.append(turn)
        program += 1
    return workload_of(drawn, block_tokens)


def _long_conversation(rng: np.random.Generator, ids: BlockIds, common: list[int]) -> list[Turn]:
    """Draw the turns of a conversation that begins at 0; blocks are those of the prompts alone, as in the trace."""
    talk: list[Turn] = []
    clock_s, tokens, blocks = 0.0, 0, common
    while not talk or rng.random() < _CONTINUES:
        if not talk:
            prompt = _first_prompt(rng)
        elif rng.random() < _EDITS:
            prompt = _first_prompt(rng)
            blocks = blocks[: max(int(len(blocks) * rng.random()), 1)]
        else:
            prompt = tokens + lognormal_tokens(rng, *_ADDED, 20_000)
        output = int(np.interp(rng.random(), _OUTPUT_SHARES, _OUTPUT_TOKENS))
        listed = ids.grown(blocks, prompt)
        talk.append(Turn(arrival_s=clock_s, prompt_tokens=prompt, output_tokens=output, program=0, blocks=listed))
        tokens = prompt + output
        blocks = ids.grown(listed, tokens)
        clock_s += math.exp(_GAP_S[0] + _GAP_S[1] * rng.standard_normal())
    return talk


def _first_prompt(rng: np.random.Generator) -> int:
    drawn = math.exp(_FIRST_PROMPT[0] + _FIRST_PROMPT[1] * rng.standard_normal())
    return int(min(max(drawn, _LEAST_PROMPT), _LONGEST_PROMPT))
