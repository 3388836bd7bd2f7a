"""A serving instance in plain Python, for the checker: iterations, memory and prefixes as the definitions say.

Written from the descriptions of ``engine``, ``prefix_cache`` and ``schedrl.devices.serving_time``, of which it uses no
code. Iterations that only decode are added up one after the other, by numpy where there are several.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.routing.fleet import ServingInstance

__all__ = ["Engine", "Request"]

_LONGEST_RUN = 1024
_COUNT = np.arange(float(_LONGEST_RUN))
# What a row of coefficients means: schedrl.devices.serving_time.
_TOKEN, _WEIGHTS, _EXPERT_WEIGHTS, _EXPERT_MISS, _OVERHEAD, _CONTEXT, _PAIR, _HEAD_TOKEN, _HEAD_WEIGHTS = range(9)
_MIXED_CONTEXT, _MIXED_SEQUENCE, _MIXED_TOKEN, _ELEMENTWISE, _ALL_REDUCE = range(9, 14)


@dataclass(slots=True, eq=False)
class Request:
    """A request as it is served. ``blocks`` are the ids of its whole blocks."""

    number: int
    prompt: int
    output: int
    blocks: list[int]
    rank: float
    arrival_s: float
    computed: int = 0
    """tokens with keys and values, of one that decodes those at tick ``since``"""
    generated: int = 0
    since: int = 0
    admission: int = -1
    """which admission it came with, -1 while it is in no iteration"""
    ready: bool = False
    """whether its prompt is computed, so that it decodes"""
    held: int = 0
    order: int = 0
    brings_cache: bool = False
    copied: bool = False
    target: int = -1
    holder: int = -1
    elsewhere: int = -1
    """instance that it was handed over or moved to last"""
    hit: int = -1
    preemptions: int = 0
    first_token_s: float = -1.0
    finish_s: float = -1.0

    @property
    def wanted(self) -> int:
        """Tokens whose keys and values must be there before the next token."""
        return self.prompt + self.generated

    @property
    def decodes(self) -> bool:
        """Whether nothing of its prompt is left to compute, in the iterations of an engine."""
        return self.admission >= 0 and (self.ready or self.brings_cache)

    @property
    def place(self) -> tuple[int, float, int]:
        """Place in a queue: those that stopped first, the last of them foremost; the others by rank and order."""
        return (0, 0.0, self.order) if self.order < 0 else (1, self.rank, self.order)


@dataclass(slots=True)
class _Plan:
    """What is computed until ``end``: prompts in one iteration, or decoding alone in as many as ``ends`` has."""

    items: list[tuple[Request, int]] = field(default_factory=list)
    ends: F64 | None = None
    ticks: int = 1
    taken: int = 0


class Engine:
    """Continuous batching on one instance; ``end`` is when the planned iterations end, inf while it is idle."""

    def __init__(self, serving: ServingInstance, *, page: int, block_tokens: int, admissions: Iterator[int]) -> None:
        self.serving = serving
        # Shared by the engines of a fleet, so that a request that comes from another has a new number.
        self.admissions = admissions
        self.page, self.size = page, block_tokens
        self.row: list[float] = serving.coefficients.tolist()
        self.shared = serving.cache_tokens < 0
        self.clock, self.end, self.busy_s = 0.0, math.inf, 0.0
        self.running: list[Request] = []
        self.partial: Request | None = None
        self.queue: list[tuple[tuple[int, float, int], Request]] = []
        self.decoding = self.context = self.tick = self.private = self.stopped = 0
        # Of decoding requests, how many need another page at the ticks of each remainder by the page size.
        self.phases = [0] * page
        self.finishes: list[tuple[int, int, Request]] = []
        self.users: dict[int, int] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()
        self.leaving: list[Request] = []
        self.plan = _Plan()
        self._linear: dict[int, float] = {}
        self._head: dict[int, float] = {}

    # --- time

    def _linear_s(self, tokens: int) -> float:
        """Layers' products, what comes between them, and the all-reduces behind them."""
        row = self.row
        weights = row[_WEIGHTS] - row[_EXPERT_WEIGHTS] * math.expm1(row[_EXPERT_MISS] * tokens)
        seconds = math.hypot(row[_TOKEN] * tokens, weights) + row[_OVERHEAD] + row[_ELEMENTWISE] * tokens
        times = row[_ALL_REDUCE:]
        if times[0] > 0.0:
            # Times are given at powers of two: a straight line between two, and beyond the last two.
            k = min(max((tokens - 1).bit_length() - 1, 0), len(times) - 2)
            seconds += times[k] + (times[k + 1] - times[k]) * (tokens / 2**k - 1.0)
        return seconds

    def iteration_s(self, tokens: int, sequences: int, context: float, pairs: float) -> float:
        """Return the seconds of an iteration: see ``schedrl.devices.serving_time`` for its terms."""
        linear = self._linear.get(tokens)
        if linear is None:
            linear = self._linear[tokens] = self._linear_s(tokens)
        head = self._head.get(sequences)
        if head is None:
            row = self.row
            head = self._head[sequences] = math.hypot(row[_HEAD_TOKEN] * sequences, row[_HEAD_WEIGHTS])
        seconds = linear + head + self.row[_CONTEXT] * context + self.row[_PAIR] * pairs
        if tokens > sequences > 1:
            # Prompts and other requests in one call of the attention kernel.
            others = (self.row[_MIXED_SEQUENCE] + self.row[_MIXED_TOKEN] * tokens) * (sequences - 1)
            seconds += self.row[_MIXED_CONTEXT] * context + others
        return seconds

    # --- memory

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self.page) * self.page

    def _available(self) -> int:
        """Return how many more tokens fit if idle prefixes leave."""
        used = self.private + (self.size * (len(self.users) - len(self.idle)) if self.shared else 0)
        return self.serving.kv_tokens - used

    def _take(self, tokens: int) -> None:
        """Take memory; the prefixes used longest ago leave for it."""
        self.private += tokens
        while self.shared and self.idle and self.private + self.size * len(self.users) > self.serving.kv_tokens:
            del self.users[self.idle.popitem(last=False)[0]]

    def _found(self, request: Request) -> int:
        """Count the leading blocks that are there, short of the last token."""
        table = self.users if self.shared else self.idle
        most = min(len(request.blocks), (request.wanted - 1) // self.size)
        count = 0
        while count < most and request.blocks[count] in table:
            count += 1
        return count

    def _use(self, request: Request, count: int) -> None:
        for block in reversed(request.blocks[:count]):
            if not self.shared:
                self.idle.move_to_end(block)
                continue
            if self.users[block] == 0:
                del self.idle[block]
            self.users[block] += 1
        request.held = count

    def _share(self, request: Request, tokens: int) -> None:
        """Make whole blocks of what is computed available to others."""
        count = min(len(request.blocks), tokens // self.size)
        for block in request.blocks[request.held : count]:
            if self.shared:
                self.private -= self.size
                if self.users.setdefault(block, 0) == 0:
                    self.idle.pop(block, None)
                self.users[block] += 1
                continue
            self.idle[block] = None
            self.idle.move_to_end(block)
            while len(self.idle) * self.size > self.serving.cache_tokens:
                self.idle.popitem(last=False)
        request.held = max(request.held, count)

    def let_go(self, request: Request) -> None:
        """Free a request's memory; its blocks stay, the last to be the first that leaves."""
        self.private -= self._pages(request.computed) - (request.held * self.size if self.shared else 0)
        for block in reversed(request.blocks[: request.held]):
            if not self.shared:
                if block in self.idle:
                    self.idle.move_to_end(block)
                continue
            self.users[block] -= 1
            if self.users[block] == 0:
                self.idle[block] = None
        request.held = 0

    # --- decoding requests

    def _start_decoding(self, request: Request) -> None:
        request.ready, request.since = True, self.tick
        self.decoding += 1
        self.context += request.computed
        self.phases[(self.tick - request.computed) % self.page] += 1
        heapq.heappush(self.finishes, (self.tick + request.output - request.generated, request.admission, request))

    def _stop_decoding(self, request: Request) -> None:
        """Bring its counts up to date, and those of the engine."""
        self.phases[(request.since - request.computed) % self.page] -= 1
        passed = self.tick - request.since
        request.computed += passed
        request.generated += passed
        request.ready = False
        self.decoding -= 1
        self.context -= request.computed

    def computed_now(self, request: Request, moment: float) -> int:
        """Return the tokens of a decoding request that are computed at a moment."""
        if not request.ready:
            return request.computed
        passed = 0 if self.plan.ends is None else int(np.searchsorted(self.plan.ends, moment, side="right"))
        return request.computed + self.tick - request.since + passed

    def _growth(self, ticks: int) -> int:
        """Return the memory that the next iterations take if all decode."""
        whole, rest = divmod(ticks, self.page)
        need = whole * self.decoding
        for k in range(rest):
            need += self.phases[(self.tick + k) % self.page]
        return need * self.page

    # --- an iteration

    def _stop_last(self) -> None:
        """Let the request admitted last go to the front of the queue, to be computed again."""
        request = self.running.pop()
        if request.ready:
            self._stop_decoding(request)
        if request is self.partial:
            self.partial = None
        self.let_go(request)
        request.computed, request.admission, request.brings_cache = 0, -1, False
        request.preemptions += 1
        self.stopped += 1
        request.order = -self.stopped
        heapq.heappush(self.queue, (request.place, request))

    def _admit(self, budget: int) -> int:
        """Admit the first of the queue if it fits; return its tokens in this iteration."""
        request = self.queue[0][1]
        if request.brings_cache:
            if self._pages(request.wanted) > self._available():
                return 0
            self._take(self._pages(request.wanted))
            request.computed, now = request.wanted - 1, 1
        else:
            count = self._found(request)
            done = count * self.size
            now = min(request.wanted - done, budget)
            need, free = self._pages(done + now), self._available()
            if self.shared:
                need -= done
                free -= self.size * sum(self.users[block] == 0 for block in request.blocks[:count])
            if need > free:
                return 0
            self._use(request, count)
            self._take(need)
            request.computed = done
            if request.hit < 0:
                request.hit = done
            if done + now < request.wanted:
                self.partial = request
        heapq.heappop(self.queue)
        request.admission = next(self.admissions)
        self.running.append(request)
        return now

    def compose(self) -> None:
        """Plan what follows ``clock``."""
        stopped = False
        need = self._growth(1)
        while need > self._available():
            self._stop_last()
            need, stopped = self._growth(1), True
        self._take(need)
        tokens, items = self.decoding, []
        request = self.partial
        if request is not None and tokens < self.serving.token_budget:
            now = min(request.wanted - request.computed, self.serving.token_budget - tokens)
            more = self._pages(request.computed + now) - self._pages(request.computed)
            if more > self._available():
                self._stop_last()
                stopped = True
            else:
                self._take(more)
                items.append((request, now))
                tokens += now
        while not stopped and self.queue and tokens < self.serving.token_budget:
            if len(self.running) >= self.serving.max_sequences:
                break
            head = self.queue[0][1]
            now = self._admit(self.serving.token_budget - tokens)
            if now == 0:
                break
            items.append((head, now))
            tokens += now
        self.plan = _Plan(items=items, taken=need)
        if tokens == 0:
            self.end = math.inf
            return
        context: float = self.context + self.decoding
        pairs = self.context + 0.5 * self.decoding
        for request, now in items:
            context += request.computed + now
            pairs += now * (request.computed + 0.5 * now)
        seconds = self.iteration_s(tokens, self.decoding + len(items), context, pairs)
        self.end = self.clock + seconds
        if not items and not stopped:
            self._plan_run(seconds)

    def _plan_run(self, first_s: float) -> None:
        """Plan iterations that only decode, until one is finished or memory is short."""
        while self.finishes[0][2].admission != self.finishes[0][1]:
            heapq.heappop(self.finishes)
        ticks = min(self.finishes[0][0] - self.tick, _LONGEST_RUN)
        free = self._available() + self.plan.taken
        if self.shared and self.queue and len(self.running) < self.serving.max_sequences:
            head = self.queue[0][1]
            if not head.brings_cache and self._found(head):
                # Its first chunk may fit once a prefix has left that it would use.
                free -= self.size * len(self.idle)
        if self._growth(ticks) > free:
            ticks = bisect_right(range(ticks + 1), free, key=self._growth) - 1
        if ticks > 1:
            longer = (self.row[_CONTEXT] + self.row[_PAIR]) * self.decoding
            ends = self.clock + np.cumsum(first_s + longer * _COUNT[:ticks])
            self.plan.ends, self.plan.ticks, self.end = ends, ticks, float(ends[-1])

    def cut(self, moment: float) -> None:
        """Let a run end with the iteration that is under way."""
        ends = self.plan.ends
        if ends is not None and self.end > moment:
            ticks = int(np.searchsorted(ends, moment, side="right")) + 1
            self.plan.ticks, self.end, self.plan.ends = ticks, float(ends[ticks - 1]), ends[:ticks]

    def commit(self) -> list[Request]:
        """Do what is planned; return the requests that are finished or leave, in order of admission."""
        plan = self.plan
        if plan.ends is not None:
            self._take(self._growth(plan.ticks) - plan.taken)
        self.tick += plan.ticks
        self.context += plan.ticks * self.decoding
        self.busy_s += self.end - self.clock
        gone = self.leaving
        self.leaving = []
        for request, now in plan.items:
            request.computed += now
            self._share(request, request.computed)
            if request.computed < request.wanted:
                continue
            if request is self.partial:
                self.partial = None
            request.generated += 1
            self._start_decoding(request)
            if request.first_token_s < 0.0:
                request.first_token_s = self.end
            if self.serving.role == "prefill":
                gone.append(request)
        while self.finishes and self.finishes[0][0] <= self.tick:
            _, admission, request = heapq.heappop(self.finishes)
            if admission == request.admission and request not in gone:
                gone.append(request)
        gone.sort(key=_by_admission)
        for request in gone:
            self._take_out(request)
        self.clock = self.end
        return gone

    def _take_out(self, request: Request) -> None:
        self._stop_decoding(request)
        self.running.remove(request)
        request.admission = -1
        if request.generated >= request.output:
            request.finish_s = self.end
            self._share(request, request.computed)
            self.let_go(request)
        elif request.copied:
            self.let_go(request)


def _by_admission(request: Request) -> int:
    return request.admission
