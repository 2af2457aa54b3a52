"""Every config and preset trains, and lowers its loss."""

import numpy as np
import pytest

from configs.fume import PRESETS
from fume_jax.training.tensorboard import read_scalars
from tests.commands import run

SMALL = [
    "--config.data.height=64",
    "--config.data.width=80",
    "--config.train.epochs=8",
    "--config.eval.every_epochs=8",
    "--config.eval.batch_size=8",
    "--config.optimizer.learning_rate=3e-3",
    "--config.optimizer.warmup_epochs=0",
    "--config.log.every_steps=1",
]
CONFIGS = (
    *(f"fume:{preset}" for preset in PRESETS),
    "demo",
    "fume_fast",
    "fume_100_epochs",
    "pretrained",
)


@pytest.mark.soak
@pytest.mark.parametrize("config", CONFIGS)
def test_training_by_a_config_lowers_its_loss(config, tiny_dataset, tmp_path):
    arguments = [f"--config={config}", f"--workdir={tmp_path}", f"--config.data.path={tiny_dataset}", *SMALL]
    result = run("fume_jax.main", *arguments)
    assert result.returncode == 0, result.stderr
    losses = read_scalars(tmp_path)["train/loss"][1]
    assert len(losses) == 24
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:3])
