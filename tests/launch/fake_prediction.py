"""A prediction that takes no time: it reads the list and writes the files that `launch.predict` reads.

`python -m tests.launch.fake_prediction MODULE ...` runs a module whose shares are of this kind.

A recording without film fails. Once a share has its first recording it waits while the folder of results has a file
`hold`, and ends early when it is told to. `predicted.txt` there has the recordings in the order of their prediction.
"""

import json
import runpy
import signal
import sys
import time
from pathlib import Path


def predict(path, output, share):
    from fume_jax.data.recording_list import read_recordings
    from fume_jax.inference.recordings import read_result, sum_codes

    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(True))
    index, count = map(int, share.split("/"))
    own = read_recordings(path)[index::count]
    for recording in own:
        if (found := read_result(output, recording)) and found["code"] != 1:
            continue
        found = {"code": 0, "summary": {"frames": 3}}
        if not Path(recording.co2).exists():
            found = {"code": 1, "fault": f"There is no file {recording.co2}", "summary": {}}
        (output / recording.id).mkdir(parents=True, exist_ok=True)
        (output / recording.id / "recording.json").write_text(json.dumps(found))
        with (output / "predicted.txt").open("a") as file:
            print(recording.id, file=file)
        while (output / "hold").exists() and not stops:
            time.sleep(0.02)
        if stops:
            return 75
    return sum_codes(read_result(output, recording)["code"] for recording in own)


def main():
    from launch.shares import Share

    arguments = Share.arguments
    Share.arguments = lambda *given, **named: ["-m", "tests.launch.fake_prediction", *arguments(*given, **named)]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if "--only_check_args" in sys.argv:
        sys.argv = sys.argv[2:]
        runpy.run_module("fume_jax.predict", run_name="__main__", alter_sys=True)
    elif sys.argv[1:3] == ["-m", "fume_jax.predict"]:
        flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[3:])
        sys.exit(predict(flags["recordings"], Path(flags["output"]), flags["share"]))
    else:
        main()
