import numpy as np
import torch
from gymnasium import spaces

from schedrl.training.group_buffer import GroupRolloutBuffer


def test_advantages_are_centred_within_each_instance() -> None:
    space = spaces.Dict({"instance": spaces.Box(0, 9, (1,), np.int32)})
    buffer = GroupRolloutBuffer(2, space, spaces.Discrete(2), gae_lambda=1.0, gamma=1.0, n_envs=4)
    # Instances 7 (rows 0, 1) and 8 (rows 2, 3): the second is far harder, which must not matter.
    rewards = np.array([[-1.0, -2.0, -11.0, -12.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    zeros = torch.zeros(4)
    for step in range(2):
        observation = {"instance": np.array([[7], [7], [8], [8]], dtype=np.int32)}
        starts = np.full(4, step == 0)
        buffer.add(observation, np.zeros(4), rewards[step], starts, zeros, zeros, action_masks=np.ones((4, 2)))
    buffer.compute_returns_and_advantage(last_values=zeros, dones=np.ones(4))
    # By hand: advantages (-1, -2, -11, -12) then zeros; means -0.75 and -5.75 per instance.
    first = buffer.advantages[:, :2]
    assert abs(first.mean()) < 1e-6 and abs(buffer.advantages[:, 2:].mean()) < 1e-6
    assert first[0, 0] > first[0, 1]
    np.testing.assert_allclose(buffer.returns[0], rewards[0])
    floor = 0.5 * np.std([-1, -2, -11, -12, 0, 0, 0, 0])
    np.testing.assert_allclose(first[0], (np.array([-1.0, -2.0]) + 0.75) / floor, rtol=1e-4)
