"""The independent checker of request routing: serve the requests again as a plan says, and compare all it claims.

A second simulation in plain Python (``replay_engine``), from the definitions: it shares no code with the kernels of the
game. Of a plan it takes decisions alone (which instance, when, which place in the queue, which moves); times, hits and
preemptions follow from them.
"""

from __future__ import annotations

import heapq
import itertools
import math

import numpy as np

from schedrl.arrays import F64, Bool
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay_engine import Engine, Request
from schedrl.envs.routing.solution import RoutingPlan

__all__ = ["check"]

_MOST_LISTED = 20
_RELATIVE, _ABSOLUTE_S = 1e-6, 1e-9
# Sums of iterations are rounded: a request that goes on at once is sent at its arrival give or take this.
_SAME_ARRIVAL_S, _SAME_MOMENT_S = 1e-6, 1e-9
_SPARE_TOKENS = 16
_SEND, _REFUSE, _HANDED_OVER, _AGAIN, _COPIED, _LANDS = range(6)


def check(instance: RoutingInstance, plan: RoutingPlan) -> list[str]:
    """Return what is wrong with a plan, in words: at most 20 violations, none if it is valid.

    Requests are sent no sooner than they arrive, to instances that take requests then and whose memory holds them; one
    is refused only if no instance will ever take it; instances serve them as their limits allow, in the plan's order;
    and first tokens, ends, hits, preemptions and busy times are what this gives, times within a millionth.
    """
    if found := _wrong_shapes(instance, plan) or _wrong_decisions(instance, plan):
        return found[:_MOST_LISTED]
    replay = _Replay(instance, plan)
    replay.run()
    return (replay.found or _wrong_claims(plan, replay))[:_MOST_LISTED]


def _wrong_shapes(instance: RoutingInstance, plan: RoutingPlan) -> list[str]:
    found = []
    if len(plan.instance) != instance.requests:
        found.append(f"the plan has {len(plan.instance)} requests, the instance {instance.requests}")
    if len(plan.busy_s) != len(instance.fleet):
        found.append(f"the plan has {len(plan.busy_s)} busy times, the fleet {len(instance.fleet)} instances")
    for name in ("dispatch_s", "rank", "first_token_s", "finish_s", "busy_s", "move_s"):
        if not np.isfinite(getattr(plan, name)).all():
            found.append(f"{name} has a value that is not finite")
    return found


def _wrong_decisions(instance: RoutingInstance, plan: RoutingPlan) -> list[str]:
    fleet, count = instance.fleet, len(instance.fleet)
    found = []
    for name, least in (("instance", -1), ("decode_instance", -1), ("move_target", 0)):
        values = getattr(plan, name)
        for k in np.flatnonzero((values < least) | (values >= count)).tolist():
            found.append(f"{name}[{k}] is {values[k]}, expected {least} to {count - 1}")
    requests = plan.move_request
    for k in np.flatnonzero((requests < 0) | (requests >= instance.requests)).tolist():
        found.append(f"move_request[{k}] is {requests[k]}, expected 0 to {instance.requests - 1}")
    if (np.diff(plan.move_s) < 0).any():
        found.append("moves are not in order of time")
    if found:
        return found
    need = instance.prompt_tokens.astype(np.int64) + instance.output_tokens + _SPARE_TOKENS
    rooms = np.array([serving.kv_tokens if serving.role != "decode" else 0 for serving in fleet])
    for r in np.flatnonzero((plan.instance >= 0) & (need > rooms[plan.instance])).tolist():
        name = fleet[plan.instance[r]].name
        found.append(f"request {r} of {need[r] - _SPARE_TOKENS} tokens is sent to {name}, which cannot take it")
    first = np.diff(instance.after_start) == 0
    for r in np.flatnonzero(first & (plan.dispatch_s < instance.arrival_s)).tolist():
        found.append(f"request {r} is sent at {plan.dispatch_s[r]:.9g} s, before it arrives")
    return found


class _Replay:
    """Everything that happens, in order of time; ``found`` lists decisions that cannot be followed."""

    def __init__(self, instance: RoutingInstance, plan: RoutingPlan) -> None:
        self.instance, self.plan = instance, plan
        self.found: list[str] = []
        size, admissions = instance.block_tokens, itertools.count()
        self.engines = [
            Engine(serving, page=plan.page_tokens, block_tokens=size, admissions=admissions)
            for serving in instance.fleet
        ]
        self.ends = [math.inf] * len(self.engines)
        self.requests = _requests(instance, plan)
        self.joined = self.moved = 0
        self.now = 0.0
        self.transfer_s = instance.kv_bytes_per_token / instance.link_bytes_per_s
        count = np.diff(instance.after_start)
        self.before: list[int] = count.tolist()
        self.behind: dict[int, list[int]] = {}
        for later, earlier in zip(
            np.repeat(np.arange(len(count)), count).tolist(), instance.after.tolist(), strict=True
        ):
            self.behind.setdefault(earlier, []).append(later)
        self.dispatch: list[float] = plan.dispatch_s.tolist()
        self.where: list[int] = plan.instance.tolist()
        # Soonest first; at one moment those that arrive by themselves and at once come last; then by number.
        self.events: list[tuple[float, bool, int, int]] = []
        arrival = instance.arrival_s.tolist()
        for r in np.flatnonzero(count == 0).tolist():
            self.events.append((self.dispatch[r], self.dispatch[r] == arrival[r], r, self._kind(r)))
        heapq.heapify(self.events)

    def _kind(self, r: int) -> int:
        return _SEND if self.where[r] >= 0 else _REFUSE

    def run(self) -> None:
        """Serve all requests; stops at the first decision that cannot be followed."""
        events, ends = self.events, self.ends
        # A move at the moment of an event is made there, where the request at hand joins.
        moves = [*(self.plan.move_s + _SAME_MOMENT_S).tolist(), math.inf]
        while not self.found:
            end = min(ends)
            event = events[0][0] if events else math.inf
            if end <= event and end <= moves[self.moved] and end < math.inf:
                self._commit(ends.index(end))
            elif moves[self.moved] < event or self._moves_before_landing():
                self._move()
            elif event < math.inf:
                self.now, _, r, kind = heapq.heappop(events)
                self._handle(self.requests[r], kind)
            else:
                break
        if not self.found:
            served = zip(self.where, self.requests, strict=True)
            left = [request.number for where, request in served if where >= 0 and request.finish_s < 0.0]
            self.found += [f"request {r} is never finished" for r in left]

    def _push(self, moment: float, request: Request, kind: int) -> None:
        heapq.heappush(self.events, (moment, False, request.number, kind))

    def _commit(self, i: int) -> None:
        engine = self.engines[i]
        self.now = engine.end
        for request in engine.commit():
            if request.finish_s >= 0.0:
                if request.generated != request.output or request.computed != request.prompt + request.output - 1:
                    self.found.append(f"request {request.number} ends with {request.generated} tokens")
                self._let_go_on(request.number)
            elif request.copied:
                self._push(self.now + self.instance.downtime_s, request, _LANDS)
            else:
                # Its memory stays taken until the keys and values have arrived.
                self._push(self.now + self._transfer_s(request.computed), request, _HANDED_OVER)
        engine.compose()
        self.ends[i] = engine.end

    def _transfer_s(self, tokens: int) -> float:
        return self.instance.link_latency_s + self.transfer_s * tokens

    def _let_go_on(self, r: int) -> None:
        """Let requests arrive whose last predecessor has just ended."""
        for later in self.behind.get(r, ()):
            self.before[later] -= 1
            if self.before[later] > 0:
                continue
            request = self.requests[later]
            request.arrival_s = self.now + float(self.instance.pause_s[later])
            sent = self.dispatch[later]
            if sent < request.arrival_s - _SAME_ARRIVAL_S:
                self.found.append(f"request {later} is sent at {sent:.9g} s, before it arrives")
            if sent < request.arrival_s + _SAME_ARRIVAL_S:
                sent = request.arrival_s
            self._push(sent, request, self._kind(later))

    def _handle(self, request: Request, kind: int) -> None:
        r, i = request.number, request.holder
        if kind == _SEND:
            self._join(request, self.where[r])
        elif kind == _REFUSE:
            self._refuse(request)
        elif kind == _COPIED:
            if not request.decodes:
                # It gave up its memory meanwhile, or is finished.
                request.target = -1
                return
            request.copied = request.brings_cache = True
            self.engines[i].leaving.append(request)
            self._cut(i)
        elif kind == _LANDS:
            request.elsewhere, request.target, request.copied = request.target, -1, False
            self._queue(request, request.elsewhere)
        else:
            if kind == _HANDED_OVER:
                self._free(request)
            self._decode_elsewhere(request)

    def _refuse(self, request: Request) -> None:
        for k, serving in enumerate(self.instance.fleet):
            fits = serving.role != "decode" and request.prompt + request.output + _SPARE_TOKENS <= serving.kv_tokens
            if fits and self.now < serving.retire_s:
                self.found.append(f"request {request.number} is refused though instance {k} takes it")
                return
        self._let_go_on(request.number)

    def _free(self, request: Request) -> None:
        """Free the memory that a request had where its prompt was computed."""
        i = request.holder
        engine = self.engines[i]
        engine.let_go(request)
        request.brings_cache = True
        if engine.end == math.inf and engine.queue:
            engine.clock = self.now
            engine.compose()
            self.ends[i] = engine.end

    def _decode_elsewhere(self, request: Request) -> None:
        """Send a request on that decodes; it waits while no instance is there yet."""
        decode = [serving for serving in self.instance.fleet if serving.role == "decode"]
        if not any(serving.ready_s <= self.now < serving.retire_s for serving in decode):
            self._push(min(serving.ready_s for serving in decode if serving.ready_s > self.now), request, _AGAIN)
            return
        j = int(self.plan.decode_instance[request.number])
        if j < 0 or self.instance.fleet[j].role != "decode":
            self.found.append(f"request {request.number} is sent to no instance that decodes")
            return
        request.elsewhere = j
        self._join(request, j)

    def _takes(self, i: int) -> bool:
        serving = self.instance.fleet[i]
        return serving.ready_s <= self.now < serving.retire_s

    def _join(self, request: Request, i: int) -> None:
        if not self._takes(i):
            self.found.append(f"request {request.number} is sent to instance {i} at {self.now:.9g} s, outside its time")
            return
        self._moves_before_joining()
        self._queue(request, i)

    def _queue(self, request: Request, i: int) -> None:
        engine = self.engines[i]
        request.holder = i
        self.joined += 1
        request.order = self.joined
        heapq.heappush(engine.queue, (request.place, request))
        if engine.end < math.inf:
            self._cut(i)
            return
        engine.clock = self.now
        engine.compose()
        self.ends[i] = engine.end

    def _cut(self, i: int) -> None:
        self.engines[i].cut(self.now)
        self.ends[i] = self.engines[i].end

    def _moves_before_joining(self) -> None:
        plan = self.plan
        while self.moved < len(plan.move_s) and plan.move_s[self.moved] <= self.now + _SAME_MOMENT_S:
            if plan.move_after[self.moved] != self.joined:
                return
            self._move()

    def _moves_before_landing(self) -> bool:
        """Whether the next move comes before the next event, in which a request joins that moved at the same moment."""
        event, _, _, kind = self.events[0] if self.events else (math.inf, False, 0, _SEND)
        if kind != _LANDS or self.moved == len(self.plan.move_s):
            return False
        due = self.plan.move_s[self.moved] <= event + _SAME_MOMENT_S
        return bool(due and self.plan.move_after[self.moved] == self.joined)

    def _move(self) -> None:
        """Begin the next move."""
        plan, k = self.plan, self.moved
        self.moved += 1
        request, j = self.requests[plan.move_request[k]], int(plan.move_target[k])
        i = request.holder
        moment = max(self.now, float(plan.move_s[k]))
        self.now = moment
        if i < 0 or i == j or request.target >= 0 or not self._takes(j) or not self._may_move(request, j):
            self.found.append(f"move {k} of request {request.number} to instance {j} is not possible")
            return
        if request.decodes:
            tokens = self.engines[i].computed_now(request, moment)
            self._push(moment + self._transfer_s(tokens), request, _COPIED)
        elif self._leave_queue(request):
            self._push(moment + self._transfer_s(request.computed), request, _LANDS)
        else:
            self.found.append(f"move {k}: request {request.number} neither waits nor decodes")
            return
        request.target = j

    def _may_move(self, request: Request, j: int) -> bool:
        """Whether another instance holds a request, and neither it nor that which has it decodes for others."""
        fits = request.prompt + request.output + _SPARE_TOKENS <= self.instance.fleet[j].kv_tokens
        return fits and "decode" not in (self.instance.fleet[request.holder].role, self.instance.fleet[j].role)

    def _leave_queue(self, request: Request) -> bool:
        queue = self.engines[request.holder].queue
        kept = [entry for entry in queue if entry[1] is not request]
        if len(kept) == len(queue):
            return False
        queue[:] = kept
        heapq.heapify(queue)
        self._cut(request.holder)
        return True


def _requests(instance: RoutingInstance, plan: RoutingPlan) -> list[Request]:
    prompt, output = instance.prompt_tokens.tolist(), instance.output_tokens.tolist()
    starts, blocks = instance.block_start.tolist(), instance.blocks.tolist()
    arrival, rank = instance.arrival_s.tolist(), plan.rank.tolist()
    requests = []
    for r in range(instance.requests):
        # The last token of an answer is never computed, so a block that ends with it is never whole.
        whole = (prompt[r] + output[r] - 1) // instance.block_tokens
        listed = blocks[starts[r] : min(starts[r + 1], starts[r] + whole)]
        requests.append(
            Request(number=r, prompt=prompt[r], output=output[r], blocks=listed, rank=rank[r], arrival_s=arrival[r])
        )
    return requests


def _close(claim: F64, truth: F64) -> Bool:
    return np.asarray(np.abs(claim - truth) <= _RELATIVE * np.abs(truth) + _ABSOLUTE_S)


def _wrong_claims(plan: RoutingPlan, replay: _Replay) -> list[str]:
    found: list[str] = []
    requests = replay.requests
    served = plan.instance >= 0
    truths: dict[str, list[float]] = {
        "first_token_s": [request.first_token_s for request in requests],
        "finish_s": [request.finish_s for request in requests],
        "hit_tokens": [request.hit for request in requests],
        "preemptions": [request.preemptions for request in requests],
        "decode_instance": [request.elsewhere for request in requests],
    }
    for name, values in truths.items():
        claim, truth = getattr(plan, name), np.array(values)
        right = _close(claim, truth) if claim.dtype == np.float64 else claim == truth
        for r in np.flatnonzero(~right).tolist():
            who = f"request {r}" if served[r] else f"refused request {r}"
            found.append(f"{who}: {name} is {claim[r]:.9g}, the replay gives {truth[r]:.9g}")
            if len(found) >= _MOST_LISTED:
                return found
    busy = np.array([engine.busy_s for engine in replay.engines])
    for i in np.flatnonzero(~_close(plan.busy_s, busy)).tolist():
        found.append(f"instance {i}: busy_s is {plan.busy_s[i]:.9g}, the replay gives {busy[i]:.9g}")
    if replay.moved < len(plan.move_s):
        found.append(f"move {replay.moved} never happens")
    return found
