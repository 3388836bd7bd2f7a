"""Learned policies: the network, its stable-baselines3 adapter, and rollouts."""
