"""The scalars, pictures and hyperparameters of a run, in Weights & Biases too, for those who ask for it."""

from pathlib import Path

import numpy as np

from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.runtime.files import replace_text


class WandbWriter:
    """A Weights & Biases run for a run folder; starting again goes on with the same one.

    Its files go to `WORKDIR/wandb/`, its id to `WORKDIR/wandb_id`. Steps that are logged again after a restart are
    dropped by the server, which has the same numbers already. Prints nothing; `WANDB_MODE=offline` sends nothing.
    """

    def __init__(self, workdir: str | Path, project: str, *, anew: bool = False):
        """Opens the run, or with `anew` another one.

        Raises:
          UserError: if wandb is not installed, nobody is logged in or the server does not answer.
        """
        with needs_extra("wandb", "Weights & Biases"):
            import wandb  # slow
        self._image = wandb.Image
        workdir = Path(workdir).absolute()
        workdir.mkdir(parents=True, exist_ok=True)
        id_file = workdir / "wandb_id"
        # The progress bar stays as it is. Given to init alone, login would still print.
        wandb.setup(settings=wandb.Settings(silent=True, console="off"))
        try:
            self._run = wandb.init(
                project=project,
                name=workdir.name,
                id=id_file.read_text() if id_file.exists() and not anew else None,  # None: a new one
                resume="allow",
                dir=workdir,
            )
        except wandb.Error as error:
            message = f"Weights & Biases: {error} (`wandb login`, or WANDB_MODE=offline, may help)"
            raise UserError(message) from error
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
        """Waits until everything is sent, or offline, written."""
        self._run.finish()
