"""What every registered router keeps: plans that the checker accepts, and objectives that it computes alike."""

from __future__ import annotations

import numpy as np
import pytest

from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import RoutingPlan, objectives
from schedrl.schedulers import SchedulerSpec, schedulers_of

pytest.importorskip("onnxruntime")
SPECS = list(schedulers_of("routing").values())


def instances() -> list[RoutingInstance]:
    """Return one instance per kind of trouble: full memory, late signals, deadlines, division of prefill and decode."""
    rng = np.random.default_rng(5)
    drawn = [
        GENERATORS["long-context"](rng, requests=60, fleet="demo", load=1.2),
        GENERATORS["sessions"](rng, requests=50, fleet="demo", load=1.0, signal_refresh_s=0.1, ttft_slo_s=1.0),
        GENERATORS["agentic"](rng, requests=50, fleet="demo", load=0.9),
        GENERATORS["gamma"](rng, requests=50, fleet="disaggregated", load=0.9, tpot_slo_s=0.1),
    ]
    return [instance for instance in drawn if isinstance(instance, RoutingInstance)]


INSTANCES = instances()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name.partition("/")[2])
def test_every_plan_passes_the_checker(spec: SchedulerSpec) -> None:
    scheduler = spec.make()
    for instance in INSTANCES:
        result = scheduler.schedule(instance, time_limit_s=2.0, rng=np.random.default_rng(1))
        assert isinstance(result.solution, RoutingPlan), (spec.name, result)
        assert check(instance, result.solution) == []
        assert result.objective == pytest.approx(objectives(instance, result.solution)["penalty"], rel=1e-12)
        assert (result.solution.instance >= 0).all()


def test_names_are_unique_and_speed_aware_forms_have_a_plain_one() -> None:
    names = [spec.name for spec in SPECS]
    assert len(set(names)) == len(names) > 50
    assert all(name.removesuffix("-speed") in names for name in names if name.endswith("-speed"))


def mean_penalties(names: tuple[str, ...], fleet: str) -> dict[str, float]:
    """Return the mean objective of routers over long prompts near what fleets sustain."""
    specs, mean = schedulers_of("routing"), {}
    for name in names:
        found = []
        for seed in range(4):
            instance = GENERATORS["long-context"](
                np.random.default_rng((77, seed)), requests=1000, fleet=fleet, load=0.85
            )
            result = specs[f"routing/{name}"].make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
            assert result.objective is not None
            found.append(result.objective)
        mean[name] = float(np.mean(found))
    return mean


def test_the_trained_router_beats_its_teacher_and_rules_that_know_speeds_on_random_fleets() -> None:
    mean = mean_penalties(("ppo", "triage", "min-ttft", "llm-d-speed", "lmetric-speed"), "random")
    assert all(mean["ppo"] < 0.9 * value for name, value in mean.items() if name != "ppo"), mean


def test_the_trained_router_beats_rules_that_know_no_speeds_on_unlike_instances() -> None:
    mean = mean_penalties(("ppo", "least-outstanding", "round-robin", "llm-d"), "heterogeneous")
    assert all(mean["ppo"] < value for name, value in mean.items() if name != "ppo"), mean
