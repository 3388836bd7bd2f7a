"""Random job shops for property tests: ``hypothesis.strategies.from_type(JobShopInstance)``."""

from hypothesis import strategies as st

from schedrl.envs.jobshop.instance import JobShopInstance


@st.composite
def instances(draw: st.DrawFn) -> JobShopInstance:
    """Draw jobs of unequal length, re-entrant ones, unused machines, and durations of which many are zero."""
    machines = draw(st.integers(1, 5))
    longest = draw(st.sampled_from([0, 1, 3, 99, 10**6]))
    operation = st.tuples(st.integers(0, machines - 1), st.integers(0, longest))
    jobs = draw(st.lists(st.lists(operation, min_size=1, max_size=6), min_size=1, max_size=6))
    return JobShopInstance.from_jobs(jobs, name="random", machines=machines)


st.register_type_strategy(JobShopInstance, instances())
