"""Every reader of files from outside takes damaged ones for what they are: read as they were, or refused in words."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
import torch

from fume_jax.inference.jax_backends import WeightsBackend
from launch import status
from tests import camera, golden, videos
from tests.commands import ROOT, environment, run
from tests.inference.test_backends import card_and_model, write_exports
from tests.soak.readers import READERS
from tests.soak.tally import TALLY

# Starting JAX takes a second in each process, so these are tried less often.
SLOW = ("run folders: JSON", "run folders: checkpoints", "weights: .npz", "exports: .stablehlo")


def images(folder):
    rng = np.random.default_rng(0)
    gray = cv2.GaussianBlur(rng.integers(0, 256, (48, 64)).astype(np.uint8), (0, 0), 2)
    deep = gray.astype(np.uint16) * 200
    color = cv2.applyColorMap(gray, cv2.COLORMAP_JET)
    for name, image in {"8.png": gray, "16.png": deep, "color.png": color}.items():
        cv2.imwrite(str(folder("frames: PNG") / name), image)
    others = {
        "a.jpg": gray,
        "a.tiff": deep,
        "c.tiff": color,
        "a.webp": color,
        "a.bmp": gray,
        "f.tiff": deep / np.float32(7),
    }
    for name, image in others.items():
        cv2.imwrite(str(folder("frames: JPEG, TIFF, WebP, BMP") / name), image)
    cv2.imwrite(str(folder("masks") / "mask.png"), gray // 86)


def stacks(folder):
    frames = np.random.default_rng(0).integers(0, 4000, (4, 48, 64)).astype(np.uint16)
    several = folder("films: SEQ, CSQ, TIFF, .npy")
    camera.write_sequence(several / "a.seq", frames, start=1e9)
    camera.write_sequence(several / "a.csq", frames, start=1e9, lossless=True)
    tifffile.imwrite(several / "a.tif", frames, photometric="minisblack", compression="deflate")
    tifffile.imwrite(several / "b.tif", frames, imagej=True)
    np.save(several / "a.npy", frames)
    np.savez_compressed(folder("films: .npz") / "a.npz", frames=frames, rate=25)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, once, tiny_dataset, trained):
    """A folder of sound files for each reader."""
    root = tmp_path_factory.mktemp("sound")
    paths = {name: root / str(i) for i, name in enumerate(READERS)}

    def folder(name):
        paths[name].mkdir(exist_ok=True)
        return paths[name]

    images(folder)
    size = ["--recordings=9", "--copies=2", "--height=48", "--width=64"]
    made = run("datasets.fume_ogi.example", f"--output={root / 'source'}", *size)
    assert made.returncode == 0, made.stderr
    paths["annotations: CSV"] = paths["recordings: images of a dataset"] = root / "source"
    films = folder("videos: H.264, MJPEG, FFV1")
    moving = [videos.noise(i) // 2 + 60 for i in range(12)]
    videos.encode(films / "a.mp4", moving, "libx264", "yuv420p", g="4")
    videos.encode(films / "a.avi", moving)
    videos.encode(films / "a.mkv", moving, "ffv1", "gray", level="3", slicecrc="1")
    stacks(folder)
    paths["prepared datasets"] = tiny_dataset
    for name in ("run folders: JSON", "run folders: checkpoints", "event files"):
        shutil.copytree(trained[0], paths[name], ignore=shutil.ignore_patterns("pictures", "examples"))
    card, model = card_and_model("classification_only")
    WeightsBackend.write(paths["weights: .npz"], model, card)
    for path in once("exports", write_exports).iterdir():
        shutil.copy(path, folder(f"exports: {path.suffix}"))
    tensors = {key: torch.tensor(value) for key, value in golden.state_dict("classification_only").items()}
    torch.save({"model_state_dict": tensors}, folder("checkpoints of PyTorch") / "best.pth")
    sweep = folder("status of sweeps")
    status.write_job(sweep, status.Job("local", "7", (0,), 1.0, "here"))
    status.started(sweep, "7")
    (sweep / status.LOG).write_text("# python\nline\n")
    return {name: str(path) for name, path in paths.items()}


def fuzz(folders, requests, seed):
    """Reads so many damaged copies for each reader, counts them, and returns how many there were."""
    text = json.dumps([(name, folders[name], count, seed) for name, count in requests.items()])
    command = [sys.executable, "-m", "tests.soak.fuzz"]
    pipes = {"input": text, "capture_output": True, "text": True, "timeout": 3000}
    result = subprocess.run(command, cwd=ROOT, env=environment(), **pipes)
    assert result.returncode == 0, result.stderr
    answers = list(map(json.loads, result.stdout.splitlines()))
    for answer in answers:
        wrong = answer["wrong"] and f"{answer['case']}: {answer['wrong']}"
        TALLY.add(f"fuzz, {answer['reader']}", wrong)
    return len(answers)


@pytest.mark.slow
def test_a_few_damaged_files_of_each_kind(folders):
    counts = {name: 1 if name in SLOW else 2 for name in READERS}
    assert fuzz(folders, counts, seed="short") == sum(counts.values())
    for name in READERS:
        TALLY.check(f"fuzz, {name}")


@pytest.mark.soak
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files(folders, name):
    fuzz(folders, {name: 25 if name in SLOW else 50}, seed="soak")
    TALLY.check(f"fuzz, {name}")


def test_damage_is_damage_and_follows_from_the_seed():
    from random import Random

    from tests.soak.fuzz import mutate

    data = bytes(range(256)) * 40
    found = [mutate(data, Random(i)) for i in range(300)]
    assert found == [mutate(data, Random(i)) for i in range(300)]
    assert sum(changed == data for changed, _ in found) < 10
    assert len({how.split()[0] for _, how in found}) == 10
