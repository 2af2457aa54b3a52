"""Optimiser and learning-rate schedule."""

import optax


def create_schedule(
    *, learning_rate: float, final_learning_rate: float, warmup_steps: int, total_steps: int
) -> optax.Schedule:
    """Linear warm-up from 0, then a cosine down to `final_learning_rate` at `total_steps`."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_steps else learning_rate,
        peak_value=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
        end_value=final_learning_rate,
    )


def create_optimizer(
    schedule: optax.Schedule, *, weight_decay: float, b1: float, b2: float, clip_norm: float
) -> optax.GradientTransformation:
    """AdamW (arXiv:1711.05101) after clipping the gradient to a global norm."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay),
    )
