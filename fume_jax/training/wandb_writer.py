"""Logs scalars, pictures and hyperparameters of a run to Weights & Biases."""

from pathlib import Path

import numpy as np

from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.runtime.files import replace_text


class WandbWriter:
    """Writes to a Weights & Biases run for a run folder; a run folder that resumes continues the same W&B run.

    Its files go to `WORKDIR/wandb/`, its id to `WORKDIR/wandb_id`. The server drops steps that are logged again after a
    restart, since it has their numbers already. It prints nothing; `WANDB_MODE=offline` sends nothing.
    """

    def __init__(self, workdir: str | Path, project: str, *, new_run: bool = False):
        """Opens the run, with `new_run` another one; UserError without wandb, a login or an answer of the server."""
        with needs_extra("wandb", "Weights & Biases"):
            import wandb  # slow
        self._image = wandb.Image
        workdir = Path(workdir).absolute()
        workdir.mkdir(parents=True, exist_ok=True)
        id_file = workdir / "wandb_id"
        # Keeps the progress bar intact. As an argument of init alone, login would still print.
        wandb.setup(settings=wandb.Settings(silent=True, console="off"))
        run_id = id_file.read_text(errors="replace") if id_file.exists() and not new_run else None  # None: a new run
        try:
            self._run = wandb.init(project=project, name=workdir.name, id=run_id, resume="allow", dir=workdir)
        except wandb.Error as error:
            raise UserError(f"Weights & Biases: {error} (`wandb login`, or WANDB_MODE=offline, may help)") from error
        replace_text(id_file, self._run.id)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs values by tag."""
        self._run.log(values, step=step)

    def image(self, step: int, tag: str, image: np.ndarray) -> None:
        """Logs an RGB image, uint8 [H, W, 3]."""
        self._run.log({tag: self._image(image)}, step=step)

    def hparams(self, values: dict[str, bool | str | float | int]) -> None:
        """Sets the config of the run."""
        self._run.config.update(values, allow_val_change=True)  # the log section may change between two starts

    def close(self) -> None:
        """Waits until all data is sent, or written if offline."""
        self._run.finish()
