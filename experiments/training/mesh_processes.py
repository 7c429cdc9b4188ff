"""Training one model with several processes.

All processes run the same program on the same data. Only process 0 prints, locks and writes files,
and broadcasts results that the others need. With one process these functions do nothing more.
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


class FirstProcessFailed(ConnectionError):  # noqa: N818 (the name is the condition)
    """An action of process 0 failed; the message has the reason."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes of a run; every process gets the same options but for `index`.

    Attributes:
      coordinator: the address HOST:PORT where process 0 listens; auto takes all three options from
        the cluster (Slurm, Open MPI, Kubernetes, TPU). Empty for one process.
      count: the number of processes.
      index: the number of this process, from 0.

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
    """Connects to the other processes; must be called before any device is used.

    Raises:
      ConnectionError: there is no answer at the coordinator's address.
      ValueError: the coordinator is `auto`, and JAX finds no cluster.
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
        _wait_for_coordinator(processes.coordinator)  # XLA would abort the process without a reason
    jax.distributed.initialize(processes.coordinator, processes.count, processes.index)


def _wait_for_coordinator(coordinator: str) -> None:
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


def is_first_process() -> bool:
    """Whether this is process 0, which prints and writes files."""
    return jax.process_index() == 0


def on_first_process[T](action: Callable[[], T]) -> T:
    """Runs `action` in process 0 and returns its result in every process.

    The others wait, so files that `action` writes exist when this returns.

    Raises:
      FirstProcessFailed: in the other processes, if `action` raised an error in process 0.
    """
    if jax.process_count() == 1:
        return action()
    if not is_first_process():
        value, failure = pickle.loads(_broadcast_from_first(b""))
        if failure:
            raise FirstProcessFailed(f"process 0 stopped: {failure}")
        return value
    try:
        value = action()
    except Exception as error:  # of any kind, because the others wait
        _broadcast_from_first(pickle.dumps((None, f"{type(error).__name__}: {error}")))
        raise
    _broadcast_from_first(pickle.dumps((value, None)))
    return value


@contextlib.contextmanager
def held_by_first_process(resource: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Process 0 enters `resource`; if that fails, every process raises an error."""
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(resource)

        on_first_process(enter)
        yield


@contextlib.contextmanager
def directory_of_first_process(directory: Path) -> Iterator[Path]:
    """`directory` in process 0, a temporary folder in every other process."""
    if is_first_process():
        yield directory
        return
    with tempfile.TemporaryDirectory() as nowhere:
        yield Path(nowhere)


def max_over_processes(number: int) -> int:
    """The max_over_processes of the numbers that the processes give; they wait for each other."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def _broadcast_from_first(message: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    block = np.zeros(size, np.uint8)
    if is_first_process():
        block[:] = np.frombuffer(message, np.uint8)
    # The broadcast is a sum over processes; all but process 0 contribute zeros.
    return np.asarray(multihost_utils.broadcast_one_to_all(block)).astype(np.uint8).tobytes()
