"""Several processes that train one model: how they meet, and what the first one does for all.

They run the same program on the same data and step together. Process 0 alone prints, locks and
writes; the others learn from it what they need to know. With one process, all of this is nothing.
"""

import contextlib
import pickle
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

PATIENCE = 60.0  # seconds that a process waits for the coordinator to answer
AUTO = "auto"


class FirstProcessFailed(ConnectionError):  # noqa: N818 (the name says what is wrong)
    """Process 0 could not do what all wait for; it says why."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which of how many processes this is; the same command in each, but for `index`.

    Attributes:
      coordinator: HOST:PORT where process 0 listens, or auto: the cluster knows (Slurm, Open MPI,
        Kubernetes, TPU), and the other two as well. Empty for one process.
      count: how many processes there are.
      index: the number of this one, from 0.

    Example:
      >>> Processes(coordinator="node1:1234", count=2, index=2)
      Traceback (most recent call last):
      ValueError: processes.index=2 must be at least 0 and below processes.count=2
    """

    coordinator: str = ""
    count: int = 1
    index: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"processes.index={self.index} must be at least 0 and below "
                f"processes.count={self.count}"
            )
        if self.coordinator in ("", AUTO):
            if self.count > 1:
                raise ValueError(
                    f"processes.count={self.count} needs processes.coordinator=HOST:PORT, where "
                    f"process 0 listens; got {self.coordinator!r} (auto finds the count itself)"
                )
        elif not self.coordinator.rpartition(":")[2].isdecimal():
            raise ValueError(
                f"processes.coordinator must be HOST:PORT or {AUTO}; got {self.coordinator!r}"
            )


def join(processes: Processes) -> None:
    """Meets the other processes; call it before anything touches a device.

    Raises:
      ConnectionError: nobody answers at the coordinator's address.
      ValueError: `auto`, and JAX finds no cluster.
    """
    if not processes.coordinator:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if processes.coordinator == AUTO:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                f"processes.coordinator=auto found no cluster ({error}); pass HOST:PORT with "
                "processes.count and processes.index"
            ) from error
        return
    if processes.index:
        _await(processes.coordinator)  # XLA would abort the process, and not say why
    jax.distributed.initialize(processes.coordinator, processes.count, processes.index)


def _await(coordinator: str) -> None:
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            raise ConnectionError(
                f"no answer at processes.coordinator={coordinator} for {PATIENCE:.0f} s ({error}); "
                "start process 0 with the same address, and see that this machine can reach it"
            ) from error
        return


def is_first() -> bool:
    """Whether this process prints and writes for all."""
    return jax.process_index() == 0


def at_first[T](action: Callable[[], T]) -> T:
    """What `action` gives in process 0, in every process.

    The others wait for it, so whatever it wrote is there when this returns.

    Raises:
      FirstProcessFailed: `action` raised in process 0, which raises that.
    """
    if jax.process_count() == 1:
        return action()
    if not is_first():
        value, failure = pickle.loads(_from_first(b""))
        if failure:
            raise FirstProcessFailed(f"process 0 stopped: {failure}")
        return value
    try:
        value = action()
    except Exception as error:  # whatever it is, the others wait to hear of it
        _from_first(pickle.dumps((None, f"{type(error).__name__}: {error}")))
        raise
    _from_first(pickle.dumps((value, None)))
    return value


@contextlib.contextmanager
def held_at_first(resource: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Process 0 enters `resource` for all; where it cannot, no process goes on."""
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(resource)

        at_first(enter)
        yield


@contextlib.contextmanager
def written_at_first(directory: Path) -> Iterator[Path]:
    """`directory` in process 0; in every other one a folder that nobody will read."""
    if is_first():
        yield directory
        return
    with tempfile.TemporaryDirectory() as nowhere:
        yield Path(nowhere)


def greatest(number: int) -> int:
    """The greatest of the numbers that the processes give; they wait for each other."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def _from_first(message: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    block = np.zeros(size, np.uint8)
    if is_first():
        block[:] = np.frombuffer(message, np.uint8)
    # Summed over the devices in their own type: all others give zeros.
    return np.asarray(multihost_utils.broadcast_one_to_all(block)).astype(np.uint8).tobytes()
