"""Commands answer --help and refuse nonsense in plain words."""

import importlib.util

import pytest

from tests.commands import assert_refused, run


@pytest.mark.parametrize(
    "module, option",
    [
        ("run", "--suite"),
        ("gpu", "--budget_seconds"),
        ("input_pipeline", "--data"),
        ("scaling", "--topology"),
        ("compiled", "--platform"),
        ("layers", "--program"),
        ("startup", "--repeats"),
        ("real_frames", "--kinds"),
        ("review", "--work"),
    ],
)
def test_help(module, option):
    result = run(f"benchmarks.{module}", "--help")
    assert result.returncode == 0, result.stderr
    assert option in result.stdout and "--output" in result.stdout


@pytest.mark.parametrize(
    "module, arguments, words",
    [
        ("run", ["--suite=tpu"], ["suite", "tpu", "cpu"]),
        ("run", ["--only=speed"], ["speed", "Inference-1", "TrainingStep-8", "epoch"]),
        ("gpu", ["--only=speed", "--quick"], ["speed", "golden values", "epoch", "TrainingStep-128"]),
        ("gpu", ["--budget_seconds=-1"], ["budget_seconds"]),
        ("input_pipeline", ["--data=nowhere"], ["nowhere", "datasets.synthetic_ogi"]),
        ("input_pipeline", ["anything"], ["anything"]),
        ("scaling", [], ["--config"]),
        ("scaling", ["--config=fume", "--config.model.nam=fume"], ["nam"]),
        ("scaling", ["--config=fume", "--config.train.gradient_accumulation_steps=2"], ["gradient_accumulation_steps"]),
        ("compiled", ["--config=fume"], ["platform"]),
        ("compiled", ["--config=fume", "--platform=cpu", "--programs=predict"], ["predict", "forward", "training"]),
        ("layers", ["--program=predict"], ["program", "forward", "training"]),
        ("startup", ["--repeats=0"], ["repeats"]),
        ("real_frames", ["--frames=nowhere"], ["nowhere", "_mask.png"]),
        ("review", [], ["--work"]),
    ],
)
def test_nonsense_is_refused(module, arguments, words):
    assert_refused(run(f"benchmarks.{module}", *arguments), *words)


@pytest.mark.skipif(bool(importlib.util.find_spec("jax_cuda12_plugin")), reason="the compiler is here")
def test_the_compiler_for_gpus_is_asked_for_in_plain_words():
    assert_refused(run("benchmarks.compiled", "--config=fume", "--platform=cuda"), '".[compilers]"')


def test_the_compiler_for_tpus_and_its_topologies_are_asked_for_in_plain_words():
    if importlib.util.find_spec("libtpu"):
        refused = run("benchmarks.scaling", "--config=fume", "--topology=v5e:nowhere")
        assert_refused(refused, "v5e:nowhere", "such as v5e:2x4")
    else:
        assert_refused(run("benchmarks.scaling", "--config=fume", "--topology=v5e:2x4"), '".[tpu]"')
