"""The learning rate over a run."""

import math

from training.config import TrainConfig

LAST_SHARE = 0.01  # of the peak, where the cosine ends
# RobustScanner (arXiv:2007.07542) trains five epochs and divides the rate by ten after the third and after the fourth.
DROPS_AT = (3 / 5, 4 / 5)  # of all steps


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of one step, the first being 0: a linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "steps":
        return config.learning_rate * 0.1 ** sum(step >= share * config.steps for share in DROPS_AT)
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return config.learning_rate * (LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))
