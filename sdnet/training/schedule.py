"""Learning rate schedules, as pure functions of the progress (section 4, "Network training")."""

import math
from collections.abc import Sequence


def learning_rate_factor(schedule: str, progress: float, milestones: Sequence[float] = ()) -> float:
    """What the initial learning rate is multiplied by.

    Args:
        schedule: "cosine", half a cosine down to 0; or "multistep", a tenth after each milestone.
        progress: share of the training that is done, 0 to 1.
        milestones: shares too, so that a shorter training keeps the shape: the paper's epochs 30, 60
            and 90 of 100 are 0.3, 0.6 and 0.9.

    Raises:
        ValueError: if the schedule is neither, or a milestone no share.
    """
    if schedule not in ("cosine", "multistep"):
        raise ValueError(f"schedule {schedule!r} is unknown; choose cosine or multistep")
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if not all(0 <= milestone <= 1 for milestone in milestones):
        given = ", ".join(map(str, milestones))
        raise ValueError(f"milestones are {given}; give shares of the training, 0 to 1: epoch 30 of 100 is 0.3")
    return 0.1 ** sum(progress >= milestone - 1e-9 for milestone in milestones)
