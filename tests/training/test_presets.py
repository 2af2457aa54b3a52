"""Every config in configs/ trains, and lowers its loss."""

import importlib

import numpy as np
import pytest

from tests.commands import ROOT, run

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
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


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_training_by_a_config_lowers_its_loss(name, tiny_dataset, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = [f"--config=configs/{name}.py", f"--workdir={tmp_path}", f"--config.data.path={tiny_dataset}", *SMALL]
    result = run("fume_jax.main", *arguments)
    assert result.returncode == 0, result.stderr
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert len(losses) == 24
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:3])


ABLATIONS = {
    "ablation_add": {"fusion": "add"},
    "ablation_concat": {"fusion": "concat"},
    "ablation_self_attention": {"fusion": "self_attention"},
    "ablation_co2": {"gas": "co2"},
    "ablation_ch4": {"gas": "ch4"},
    "ablation_segmentation": {"tasks": "segmentation"},
    "ablation_classification": {"tasks": "classification"},
    "gas_aware": {"gas": "both"},
}


def test_every_config_is_of_the_model_or_ablation_that_it_is_named_after():
    from fume_jax.models import MODELS, architecture

    assert {*MODELS, *ABLATIONS, "demo", "shipped", "fume_fast", "fume_100_epochs"} == set(NAMES)
    for name in NAMES:
        config = importlib.import_module(f"configs.{name}").get_config()
        check(config)
        expected = architecture(name if name in MODELS else "fume", **ABLATIONS.get(name, {}))
        assert abstract_model(config).options == expected, name
