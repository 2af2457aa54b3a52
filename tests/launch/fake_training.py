"""A training that takes no time: it reads the run folder's config and writes the files that a sweep reads.

`python -m tests.launch.fake_training MODULE ...` runs a module whose runs are of this kind.

A run fails if `init_from` is not a folder. Once it has saved its first step, a run of more than two epochs waits while
the folder of the sweep has a file `hold`, and saves when it is told to end. A run of a fold has scored examples too.
"""

import json
import runpy
import signal
import sys
import time
from pathlib import Path

STEPS_PER_EPOCH = 6


def train(workdir):
    config = json.loads((workdir / "config.json").read_text())
    epochs, source = config["train"]["epochs"], config["init_from"]
    if source and not Path(source).is_dir():
        print(f"error: {source} is not a run folder")
        return 1
    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(True))
    path = workdir / "validation.json"
    evaluated = json.loads(path.read_text()) if path.exists() else {}
    if evaluated:
        print(f"going on after step {list(evaluated)[-1]}")
    for epoch in range(1 + len(evaluated), 1 + epochs):
        evaluated[str(epoch * STEPS_PER_EPOCH)] = {"mean_iou": epoch / epochs, "balanced_accuracy": 0.5}
        (workdir / "checkpoints" / str(epoch * STEPS_PER_EPOCH)).mkdir(parents=True)
        path.write_text(json.dumps(evaluated))
        while epochs > 2 and (workdir.parent / "hold").exists() and not stops:
            time.sleep(0.02)
        if stops:
            print("the same command goes on from there")
            return 75
    (workdir / "metrics.json").write_text(json.dumps({"test/mean_iou": 0.625}))
    if config["data"]["folds"]:
        score_fold(workdir, config["data"], config["seed"])
    return 0


def score_fold(workdir, data, seed):
    """Writes the scores of a pair of each recording of the fold, of which seed 1 gets one wrong."""
    from fume_jax.data.folds import read_folds
    from tests.launch.scored_runs import write_run

    own = [recording for recording, fold in read_folds(data["folds"]).items() if fold == data["fold"]]
    right = [seed == 0 or recording != own[0] for recording in own]
    write_run(workdir, own, right, digest=f"fold {data['fold']}", config=False)


def main():
    from launch.plan import Run

    arguments = Run.arguments
    Run.arguments = lambda *given, **named: ["-m", "tests.launch.fake_training", *arguments(*given, **named)]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    folders = [word.partition("=")[2] for word in sys.argv if word.startswith("--workdir=")]
    sys.exit(train(Path(folders[0])) if sys.argv[1:3] == ["-m", "fume_jax.main"] else main())
