"""Runs commands where there is no network, and tells which names and addresses they tried to reach.

`python -m tests.no_network` reads one JSON list of commands, each a module with its arguments or a program by its path,
and answers each with a line of JSON: `code`, `output`, `seconds`, `names` that were looked up and the number of
`connections` to other machines. Python knows nothing of what libraries in C do, so it is the system that is asked: the
process enters a network namespace of its own, whose only name server is this one, and the kernel counts packets that
have no route.
"""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.commands import ROOT, run

NAMESPACE = ["unshare", "--map-root-user", "--net", "--mount"]
# The system finds names in its own file, and then at the server.
FILES = {"resolv.conf": "nameserver 127.0.0.1\n", "nsswitch.conf": "hosts: files dns\n"}
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def run_all(commands, environment, timeout=600):
    """What `python -m tests.no_network` says of the commands; skips, loudly, where no namespace can be entered."""
    attempt = [*NAMESPACE, "mount", "--bind", "/etc/hosts", "/etc/resolv.conf"]
    if not shutil.which("unshare") or subprocess.run(attempt, capture_output=True).returncode:
        pytest.skip("NETWORK NOT CHECKED: this machine lets no process enter a network namespace of its own")
    command = [*NAMESPACE, sys.executable, "-m", "tests.no_network"]
    text = json.dumps(commands)
    result = subprocess.run(
        command, cwd=ROOT, env=environment, input=text, capture_output=True, text=True, timeout=timeout
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def _start_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0)))
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _serve_names(asked):
    """Answers every question that there is no such name, from a thread of its own."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def serve():
        while True:
            question, peer = server.recvfrom(2048)
            labels, position = [], 12
            while length := question[position]:
                labels.append(question[position + 1 : position + 1 + length].decode("ascii", "replace"))
                position += 1 + length
            asked.append(".".join(labels))
            server.sendto(question[:2] + b"\x81\x83" + question[4:6] + bytes(6) + question[12:], peer)

    threading.Thread(target=serve, daemon=True).start()


def _count_unroutable():
    """Number of packets of this namespace that the kernel had no route for."""
    titles, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip: ")
    )
    count = int(dict(zip(titles, values, strict=True))["OutNoRoutes"])
    version_6 = Path("/proc/net/snmp6")
    for line in version_6.read_text().splitlines() if version_6.exists() else ():
        if line.startswith("Ip6OutNoRoutes"):
            count += int(line.split()[1])
    return count


def main():
    _start_loopback()
    asked = []
    _serve_names(asked)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            if os.path.exists(f"/etc/{name}"):
                Path(folder, name).write_text(text)
                subprocess.run(["mount", "--bind", f"{folder}/{name}", f"/etc/{name}"], check=True)
        for command in json.load(sys.stdin):
            asked.clear()
            before, begin = _count_unroutable(), time.monotonic()
            fresh = os.path.isabs(command[0])
            result = subprocess.run(command, capture_output=True, text=True) if fresh else run(*command)
            output = result.stdout + result.stderr
            answer = {"code": result.returncode, "output": output, "names": sorted(set(asked))}
            answer["seconds"] = time.monotonic() - begin
            print(json.dumps(answer | {"connections": _count_unroutable() - before}), flush=True)


if __name__ == "__main__":
    main()
