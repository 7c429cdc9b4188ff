"""A JupyterLab server for tests, with settings, notebooks and trust in a folder of its own."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
NEWS = "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
START = 60  # most seconds until the server answers


class Server(NamedTuple):
    """The address of a running server, its token, and the folder of its notebooks."""

    address: str
    token: str
    folder: Path


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[Server]:
    """Starts JupyterLab on a free port of this machine, and stops it after the test.

    Raises:
      TimeoutError: the server does not answer; the message has its last lines.
    """
    notebooks, home = folder / "notebooks", folder / "home"
    notebooks.mkdir()
    (home / NEWS).parent.mkdir(parents=True)
    (home / NEWS).write_text(json.dumps({"fetchNews": "false"}), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), notebooks)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--IdentityProvider.token={server.token}", f"--ServerApp.root_dir={notebooks}"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"]
    command += ["--LabApp.extension_manager=readonly"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=_environment(home), stdout=log, stderr=log)
        try:
            _wait(server, process, home / "log")
            yield server
        finally:
            process.terminate()
            process.wait(30)


def notebook(*cells: str) -> str:
    """A notebook file with these code cells, not yet run."""
    described = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "source": cell,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for i, cell in enumerate(cells)
    ]
    metadata = {"kernelspec": KERNEL}
    return json.dumps(
        {"cells": described, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


def _environment(home: Path) -> dict[str, str]:
    folders = {
        "HOME": home,
        "IPYTHONDIR": home / "ipython",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "PYTHONPATH": REPOSITORY,
    }
    return {**os.environ, **{name: str(path) for name, path in folders.items()}}


def _wait(server: Server, process: subprocess.Popen, log: Path) -> None:
    address = f"{server.address}/api?token={server.token}"
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    lines = log.read_text(encoding="utf-8").splitlines()
    raise TimeoutError("JupyterLab did not start: " + "\n".join(lines[-20:]))
