"""Expert placement: replicas of experts on devices, their re-planning as loads drift, and caches of experts."""
