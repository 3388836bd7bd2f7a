"""How many random cases property tests draw: 100, or as many as SCHEDRL_EXAMPLES says."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "schedrl",
    max_examples=int(os.environ.get("SCHEDRL_EXAMPLES", "100")),
    deadline=None,  # the first call of a kernel compiles it
    derandomize="SCHEDRL_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("schedrl")
