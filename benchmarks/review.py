"""Gas IoU after some frames of a new camera are labelled: those that `fume review` chooses, or random ones.

    python -m benchmarks.review --work=/tmp/review

For each seed 12 recordings of a simulated camera, of other polarity, contrast and sharpness than those of training, are
predicted by the pretrained model. Some of their frames get their true masks, the pretrained model is tuned on them for
as many steps whatever their number, and finds the gas in frames of 24 other recordings of that camera. With
`--scratch_steps` a model that starts from nothing is trained on the random frames as well.
"""

import csv
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks.report import Report
from fume_jax.runtime import cli

_WORK = flags.DEFINE_string(
    "work", None, "Folder for films, datasets and runs; what is there is not made again.", required=True
)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Number of sets of recordings.", lower_bound=1)
_COUNTS = flags.DEFINE_multi_integer("count", [20], "Numbers of frames that are chosen, and drawn at random.")
_RANDOM = flags.DEFINE_multi_integer("random", [100], "Further numbers of frames that are drawn at random.")
_STEPS = flags.DEFINE_integer("steps", 150, "Number of steps of each training.", lower_bound=1)
_SCRATCH = flags.DEFINE_integer(
    "scratch_steps", 0, "Steps of trainings from nothing on the random frames; 0 trains none.", lower_bound=0
)
flags.declare_key_flag("output")
# Recordings and frames of each: of a pool for labels, and of the splits that choose a checkpoint and score it.
POOL, VALIDATION, TEST = (12, 30), (6, 2), (24, 4)
WIDTH, TRAINED = 320, (240, 320)
BATCH = 8


def main() -> int:
    """Tunes and scores; returns the exit code."""
    from fume_jax.inference.predictor import Predictor

    work, report = Path(_WORK.value), Report(steps=_STEPS.value)
    after = POOL[0] * _SEEDS.value
    validation, test = (
        make_films(work / "val", VALIDATION, after),
        make_films(work / "test", TEST, after + VALIDATION[0]),
    )
    held_back = {"val": all_frames(validation), "test": all_frames(test)}
    scores = {}
    before = gas_iou(Predictor.load(), test)
    for seed in range(_SEEDS.value):
        films = make_films(work / f"pool{seed}", POOL, POOL[0] * seed)
        every, rng = all_frames(films), np.random.default_rng(seed)
        order = [every[i] for i in rng.permutation(len(every))]
        sets = {f"{count} random": order[:count] for count in sorted({*_COUNTS.value, *_RANDOM.value})}
        sets |= {f"{count} chosen": choose(films, count, work / f"pool{seed}") for count in _COUNTS.value}
        trainings = {name: (frames, _STEPS.value, "fume_jax/assets") for name, frames in sets.items()}
        if _SCRATCH.value:
            trainings |= {
                f"{name} from nothing": (frames, _SCRATCH.value, None)
                for name, frames in sets.items()
                if name.endswith("random")
            }
        for name, (frames, steps, start) in trainings.items():
            run = work / f"runs{seed}" / name.replace(" ", "_")
            found = tune(run, {"train": frames} | held_back, steps, start)
            scores.setdefault(name, []).append(gas_iou(found, test))
            report.add(
                "runs", seed=seed, frames=name, recordings=len({frame[0] for frame in frames}), iou=scores[name][-1]
            )
    report.add("summary", frames="0", mean=before)
    for name, values in scores.items():
        low, high = interval(values)
        report.add("summary", frames=name, mean=float(np.mean(values)), low=low, high=high)
    for count in _COUNTS.value:
        gain = np.subtract(scores[f"{count} chosen"], scores[f"{count} random"])
        low, high = interval(gain)
        report.add("summary", frames=f"{count} chosen - random", mean=float(gain.mean()), low=low, high=high)
    return report.finish()


def interval(values) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of a few values, by Student's t."""
    from scipy import stats

    if len(values) < 2:
        return float("nan"), float("nan")
    return tuple(map(float, stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))))


def make_films(folder: Path, size: tuple[int, int], first: int) -> Path:
    """Renders films of recordings from the `first` on, which are a folder each; returns their folder."""
    films, (recordings, frames) = folder / "films", size
    if not (films / "recordings.csv").is_file():
        options = [f"--recordings={recordings}", f"--recording={first}", f"--frames={frames}", f"--width={WIDTH}"]
        call("datasets.synthetic_ogi.film", *options, "--other_camera", f"--output={films}")
    return films


def all_frames(films: Path) -> list[tuple[Path, str, int]]:
    """Returns folder, gas and position of every frame of films."""
    from datasets.synthetic_ogi.recording import TRUTH

    found = []
    for path in sorted(films.glob(f"*/{TRUTH}")):
        for gas, masks in truth_of(path.parent).items():
            found += [(path.parent, gas, position) for position in range(len(masks))]
    return found


@functools.lru_cache(maxsize=64)
def truth_of(folder: Path) -> dict[str, np.ndarray]:
    """Returns the masks of a recording, uint8 [T, H, W] by gas."""
    from datasets.synthetic_ogi.recording import read_truth

    return read_truth(folder)


def choose(films: Path, count: int, folder: Path) -> list[tuple[Path, str, int]]:
    """Returns the frames that `fume review` chooses of films that the pretrained model predicted."""
    from fume_jax.data.labels.manifest import MANIFEST, read_manifest

    predictions, review = folder / "predictions", folder / f"review{count}"
    if not (review / MANIFEST).is_file():
        call("fume_jax.predict", f"--recordings={films / 'recordings.csv'}", f"--output={predictions}", "--save=")
        call(
            "fume_jax.commands.review",
            *(f"--predictions={predictions}", f"--output={review}", f"--frames={count}", "--to=coco"),
        )
    return [(films / row.recording, row.gas, row.frame_index) for row in read_manifest(review / MANIFEST)]


def tune(run: Path, splits: dict[str, list], steps: int, start: str | None):
    """Trains on the frames of a split, from a run or from nothing, and returns the predictor of the result."""
    from fume_jax.inference.predictor import Predictor

    if not (run / "metrics.json").is_file():
        source = run.with_name(f"{run.name}_frames")
        pairs = write_recordings(source, splits)
        flags = [
            f"--source={source}",
            f"--data_dir={source}",
            "--name=own",
            "--split=published",
            f"--report={source / 'faults.csv'}",
        ]
        call("datasets.fume_ogi", *flags, "--allow=empty_class,duplicate_frame,no_gas")
        (path,) = source.glob("fume_ogi/own_*/*")
        epochs = max(1, round(steps / -(-pairs // BATCH)))
        config = {
            "data.path": path,
            "data.height": TRAINED[0],
            "data.width": TRAINED[1],
            "data.sampling": "uniform",
            "train.epochs": epochs,
            "train.batch_size": min(BATCH, pairs),
            "eval.every_epochs": epochs,
            "eval.batch_size": 24,
            "checkpoint.best_metric": "mean_iou",
            "checkpoint.every_epochs": epochs,
            "log.images": 0,
        }
        config |= {"init_from": start} if start else {}
        call("fume_jax.main", "--config=fume", f"--workdir={run}", *(f"--config.{k}={v}" for k, v in config.items()))
    return Predictor.load(run)


def write_recordings(folder: Path, splits: dict[str, list]) -> int:
    """Writes frames and true masks in the layout of `datasets.fume_ogi`; returns the number of training pairs."""
    from datasets.fume_ogi.annotations import SINGLE_COLUMNS
    from fume_jax.data.films import read_film_frame
    from fume_jax.evaluation.overlays import save
    from fume_jax.schema import CLASSES, GASES, PH_CLASS

    for split, frames in splits.items():
        rows = []
        for recording, gas, position in frames:
            ph = phs(recording.parent)[recording.name]
            name = f"{recording.name}_{position:04d}_{gas}.png"
            save(folder / "images" / name, read_film_frame(str(recording / f"{gas}.mp4"), position))
            save(folder / "masks" / name, truth_of(recording)[gas][position])
            label = PH_CLASS[ph]
            rows.append((f"images/{name}", f"masks/{name}", gas, ph, label, CLASSES[label], recording.name, position))
        with (folder / f"{split}_annotations.csv").open("w", newline="") as file:
            csv.writer(file).writerows([SINGLE_COLUMNS, *rows])
    # Frames pair at random within equal pH and class.
    training = [(phs(recording.parent)[recording.name], gas) for recording, gas, _ in splits["train"]]
    return sum(max(training.count((ph, gas)) for gas in GASES) for ph in {ph for ph, _ in training})


@functools.cache
def phs(films: Path) -> dict[str, float]:
    """Returns the pH of every recording of some films."""
    with (films / "recordings.csv").open(newline="") as file:
        return {row["id"]: float(row["ph"]) for row in csv.DictReader(file)}


def gas_iou(predictor, films: Path) -> float:
    """Returns the IoU of gas over all frames of films, one gas at a time."""
    from fume_jax.data.films import read_film_frame
    from fume_jax.schema import GAS

    hits = either = 0
    for recording, gas, position in all_frames(films):
        frame, truth = read_film_frame(str(recording / f"{gas}.mp4"), position), truth_of(recording)[gas][position]
        found = predictor.predict([{gas: frame}])[0].masks[gas]
        hits += np.count_nonzero((found == GAS) & (truth == GAS))
        either += np.count_nonzero((found == GAS) | (truth == GAS))
    return hits / max(either, 1)


def call(module: str, *arguments) -> None:
    """Runs a command of the project; raises an error with what it printed if it fails."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    cli.run(main)
