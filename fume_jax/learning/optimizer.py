"""Optimisers and learning-rate schedules by name."""

from collections.abc import Sequence

import optax

SCHEDULES = ("cosine", "step", "constant")
OPTIMIZERS = ("adamw", "adam", "sgd")


def create_schedule(
    name: str,
    *,
    learning_rate: float,
    final_learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    decay_steps: Sequence[int] = (),
    decay_factor: float = 0.1,
) -> optax.Schedule:
    """Creates a linear warm-up from 0 to `learning_rate` over `warmup_steps`, then the schedule `name`.

    That is `cosine`, down to `final_learning_rate` at `total_steps`; `step`, times `decay_factor` at each of
    `decay_steps`; or `constant`; ValueError otherwise. All numbers of steps include the warm-up.
    """
    if name == "cosine":
        alpha = final_learning_rate / learning_rate
        decay = optax.cosine_decay_schedule(learning_rate, total_steps - warmup_steps, alpha=alpha)
    elif name == "step":
        factors = {step - warmup_steps: decay_factor for step in decay_steps}
        decay = optax.piecewise_constant_schedule(learning_rate, factors)
    elif name == "constant":
        decay = optax.constant_schedule(learning_rate)
    else:
        raise ValueError(f"Expected a schedule of {', '.join(SCHEDULES)}, got {name!r}.")
    if not warmup_steps:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), decay], [warmup_steps])


def create_optimizer(
    name: str, schedule: optax.Schedule, *, weight_decay: float, b1: float, b2: float, clip_norm: float
) -> optax.GradientTransformation:
    """Creates an optimiser that follows a schedule, after clipping the gradient to the global norm `clip_norm`.

    `name` is `adamw` (decoupled decay, arXiv:1711.05101), `adam` (arXiv:1412.6980) or `sgd` with Nesterov momentum
    `b1`; ValueError otherwise. `b1` and `b2` are the decay of the averages of gradient and squared gradient. The weight
    decay applies to all parameters; `adam` and `sgd` add it to the gradient, as L2 regularisation does.
    """
    if name == "adamw":
        optimizer = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay)
    elif name == "adam":
        optimizer = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(schedule, b1=b1, b2=b2))
    elif name == "sgd":
        sgd = optax.sgd(schedule, momentum=b1 or None, nesterov=bool(b1))
        optimizer = optax.chain(optax.add_decayed_weights(weight_decay), sgd)
    else:
        raise ValueError(f"Expected an optimizer of {', '.join(OPTIMIZERS)}, got {name!r}.")
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
