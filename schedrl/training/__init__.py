"""Training: configuration, curriculum, PPO, validation, checkpoints. Needs the ``train`` extra."""
