from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import instances

from schedrl.baselines.socdag import SCHEDULERS
from schedrl.envs.socdag.solution import DagSchedule, check, objectives
from schedrl.envs.socdag.structured import canonical
from schedrl.schedulers import SchedulerSpec, get_scheduler

# Solvers get their own property tests; here each would take its whole time limit for every example.
SEARCHES = ("cp-sat", "cp-sat-rolling", "annealing", "ppo", "ppo-sample", "ppo-preference")
HEURISTICS = [spec for spec in SCHEDULERS if spec.name.partition("/")[2] not in SEARCHES]
# Fewer than elsewhere by default: every example is scheduled by some forty schedulers.
EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "25"))


def test_names_are_unique_and_the_promised_ones_exist() -> None:
    names = [spec.name for spec in SCHEDULERS]
    assert len(names) == len(set(names))
    lists = "heft cpop peft lookahead dls etf-start etf-finish mct met olb min-min max-min sufferage duplex fastest bil"
    online = "heft-rt met-online eft-online etf-finish-online etf-finish-hold"
    others = "edp-heft edf edf-admission cp-sat cp-sat-rolling annealing ppo ppo-sample ppo-preference"
    promised = {f"socdag/{name}" for group in (lists, online, others) for name in group.split()}
    assert promised <= set(names)
    assert get_scheduler("socdag/heft-rt").information == "online"
    assert all(spec.summary and spec.source for spec in SCHEDULERS)


# One instance for all of them: drawing it takes longer than scheduling it thirty times.
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(data=st.data())
def test_every_schedule_of_every_heuristic_passes_the_checker(data: st.DataObject) -> None:
    flags = {name: data.draw(st.booleans()) for name in ("noise", "deadlines", "capacity", "memory", "contention")}
    drawn = data.draw(instances(jobs=3, **flags))
    instance = dataclasses.replace(drawn, admission_cap=data.draw(st.sampled_from([0, 0, 1, 2])))
    for spec in HEURISTICS:
        result = spec.make().schedule(instance, time_limit_s=5.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, DagSchedule), spec.name
        assert check(instance, result.solution) == [], spec.name
        assert result.objective == pytest.approx(objectives(instance, result.solution)["latency"]), spec.name
        if result.lower_bound is not None and (result.solution.device >= 0).all():
            assert result.lower_bound <= result.objective * (1 + 1e-9), spec.name


@pytest.mark.parametrize("spec", HEURISTICS, ids=lambda spec: spec.name)
def test_same_seed_same_schedule(spec: SchedulerSpec) -> None:
    runs = [spec.make().schedule(canonical(), time_limit_s=5.0, rng=np.random.default_rng(0)) for _ in range(2)]
    assert runs[0].solution == runs[1].solution


def test_listing_schedulers_loads_neither_solver_nor_torch() -> None:
    code = (
        "import sys, schedrl.schedulers as s; s.schedulers_of('socdag'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ortools', 'onnxruntime', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
