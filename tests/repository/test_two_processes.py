"""Attention in two processes, connected over the loopback, equals attention in one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "programs" / "attend_in_two_processes.py"


def test_two_processes_agree_with_one():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    environment = dict(os.environ, PYTHONPATH=str(ROOT), JAX_PLATFORMS="cpu")
    pair = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(process), port],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in (0, 1)
    ]
    try:
        reports = [process.communicate(timeout=120)[0] for process in pair]
    finally:
        for process in pair:
            process.kill()
    for process, report in zip(pair, reports, strict=True):
        assert process.returncode == 0, report[-3000:]
        assert report.splitlines()[-1] == "agree", report[-3000:]
