"""Checkpoints that are written atomically and verified before use.

Orbax writes the arrays. A checkpoint is written under another name and sealed (seals.py), then
renamed: a kill, a crash or a full disk leaves earlier checkpoints unchanged. If the newest
checkpoint is damaged, the one before it is used.

    checkpoints/step-00000400/
      arrays/         params, optimiser state, random key, step (Orbax)
      state.json      config, data cursor, totals; name, dtype and shape of each array
      metrics.jsonl   the metrics up to this step
      SHA256SUMS      hashes of all these files
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from experiments.training import orbax_errors, runs, seals
from experiments.training.mesh_processes import on_first_process

FORMAT = 1
KEEP = 2
_ARRAYS, _STATE = "arrays", "state.json"
_DRAFT, _DOOMED = ".writing", ".removing"


class CheckpointCorrupt(ValueError):  # noqa: N818 (the name is the condition)
    """Every stored checkpoint is damaged."""


class CheckpointMismatch(ValueError):  # noqa: N818 (the name is the condition)
    """The stored checkpoint belongs to another run, model or version."""


class CheckpointNotSaved(OSError):  # noqa: N818 (the name is the condition)
    """A checkpoint could not be written; the earlier ones are unchanged."""


@dataclass(frozen=True)
class Checkpoint:
    """An undamaged checkpoint: path, step, content of state.json, and newer damaged checkpoints."""

    path: Path
    step: int
    state: dict[str, Any]
    damaged: dict[Path, str]

    @property
    def log(self) -> str:
        """The metrics file at this step."""
        return (self.path / runs.METRICS).read_text()

    @property
    def fingerprint(self) -> str:
        """A hash of all its files; another checkpoint has another."""
        return hashlib.sha256((self.path / seals.SUMS).read_bytes()).hexdigest()


def save(directory: Path, step: int, arrays: PyTree, state: Mapping[str, Any], log: str) -> None:
    """Writes the checkpoint of `step` and removes all but the newest `KEEP`.

    Each process writes its part of the arrays, and the first process everything else, all to the
    same `directory`.

    Raises:
      CheckpointNotSaved: writing failed; the incomplete files are removed.
    """
    final = directory / f"step-{step:08d}"
    draft = final.with_name(final.name + _DRAFT)
    named = _by_name(arrays)

    def finish() -> None:
        (draft / _STATE).write_text(
            json.dumps({"format": FORMAT, "step": step, **state, "arrays": describe(arrays)})
        )
        (draft / runs.METRICS).write_text(log)
        seals.seal(draft)
        draft.rename(final)

    def prepare() -> None:
        draft.mkdir(parents=True)
        if shutil.disk_usage(draft).free < _size(named):
            raise OSError(errno.ENOSPC, "No space left on device")

    try:
        on_first_process(prepare)
        _write_arrays(draft / _ARRAYS, named)
        on_first_process(finish)
    except (OSError, ValueError) as error:  # a full disk is a ValueError inside Orbax
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointNotSaved(_why_not_saved(directory, step, named, error)) from error
    on_first_process(lambda: _remove_old(directory))


def exist(directory: Path) -> bool:
    """Whether there is any checkpoint, damaged or not."""
    return bool(_steps(directory))


def newest(directory: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint; None if there are no checkpoints.

    Raises:
      CheckpointCorrupt: there are checkpoints, and every one is damaged.
      CheckpointMismatch: a newer version of this program wrote it.
    """
    damaged = {}
    for step, path in sorted(_steps(directory).items(), reverse=True):
        damage = seals.damage(path, needed=(_ARRAYS, _STATE, runs.METRICS))
        if damage is None:
            state = _read_state(path)
            if state.get("step", step) == step:  # older formats lack the field
                return Checkpoint(path, step, state, damaged)
            damage = f"it is a checkpoint of step {state['step']}"
        damaged[path] = damage
    if damaged:
        listing = "; ".join(f"{path.name}: {damage}" for path, damage in damaged.items())
        raise CheckpointCorrupt(
            f"no good checkpoint is left in {directory} ({listing}); restore the directory from a "
            "copy, or pass --fresh to train again from the start"
        )
    return None


def restore(checkpoint: Checkpoint, like: PyTree, *, under: str = "") -> PyTree:
    """Reads the arrays below the branch `under`, all if it is empty, as a tree like `like`.

    Arrays get the sharding of `like`, or lie on the default device if it has none.

    Raises:
      CheckpointMismatch: names, shapes or dtypes are not exactly those of `like`.
    """
    wanted = _by_name(like, under)
    branch = under + "." if under else ""
    stored = checkpoint.state["arrays"].items()
    require_equal(
        checkpoint.path,
        {name: spelled for name, spelled in stored if name.startswith(branch)},
        describe(like, under),
    )
    target = {name: _restore_target(leaf) for name, leaf in wanted.items()}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        arrays = checkpointer.restore(
            (checkpoint.path / _ARRAYS).absolute(),
            args=ocp.args.PyTreeRestore(
                item=target,
                restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                partial_restore=True,
            ),
        )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in wanted])


def require_equal(where: Path, stored: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Checks that two flat descriptions of configs or arrays are equal.

    Raises:
      CheckpointMismatch: they differ; the message lists every differing field.
    """
    absent = object()
    names = {
        name: (stored.get(name, absent), requested.get(name, absent))
        for name in {**stored, **requested}
    }
    differing = [
        f"{name} {'absent' if old is absent else old} in the checkpoint, "
        f"{'none' if new is absent else new} requested"
        for name, (old, new) in names.items()
        if old != new
    ]
    if differing:
        raise CheckpointMismatch(
            f"{where} holds another run: {'; '.join(differing)}. "
            "Choose another --name or pass --fresh"
        )


def describe(tree: PyTree, under: str = "") -> dict[str, str]:
    """Dtype and shape of each array by name: {"params.embed": "float32[3000,620]"}."""
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in _by_name(tree, under).items()
    }


def require_space(directory: Path, arrays: PyTree) -> None:
    """Makes the directory, and checks that the disk has room for the checkpoints still to come.

    They are `KEEP`, and one while it is written, less those that are stored already.

    Raises:
      OSError: it has not; the message has the needed and the free space.
    """
    copies = KEEP + 1 - len(_steps(directory))  # one more while it is written
    directory.mkdir(parents=True, exist_ok=True)
    runs.require_space(directory, copies * _size(arrays), "the checkpoints of this run")


def remove_leftovers(directory: Path, damaged: Mapping[Path, str]) -> None:
    """Removes the checkpoints listed in `damaged`, and what killed processes left unfinished.

    It verifies nothing. The caller holds the lock.
    """
    leftovers = [path for end in (_DRAFT, _DOOMED) for path in directory.glob(f"*{end}")]
    for path in [*damaged, *leftovers]:
        _delete(path)


def _write_arrays(path: Path, named: Mapping[str, jax.Array]) -> None:
    with orbax_errors.quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(path.absolute(), args=ocp.args.PyTreeSave(dict(named)))


def _read_state(path: Path) -> dict[str, Any]:
    state = json.loads((path / _STATE).read_text())
    if state["format"] > FORMAT:
        raise CheckpointMismatch(
            f"{path} has format {state['format']}, and this program supports up to {FORMAT}; "
            "update it, choose another --name, or pass --fresh"
        )
    return state


def _why_not_saved(directory: Path, step: int, named: Mapping[str, Any], error: Exception) -> str:
    needed = runs.megabytes(_size(named))
    free = runs.megabytes(shutil.disk_usage(directory).free)
    kept = max(_steps(directory), default=None)
    rest = "no earlier one exists" if kept is None else f"the one of step {kept} is intact"
    number, reason = orbax_errors.reason(error)
    is_kept_out = number in (errno.EACCES, errno.EPERM, errno.EROFS)
    remedy = f"Make {directory} writable" if is_kept_out else "Free some space"
    return (
        f"the checkpoint of step {step} was not saved ({reason}): it needs about {needed} in "
        f"{directory}, where {free} are free; {rest}. {remedy} and run the same command to continue"
    )


def _size(arrays: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


def _by_name(tree: PyTree, under: str = "") -> dict[str, Any]:
    """The leaves by the names that Orbax gives them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        name = ".".join(filter(None, (under, name)))
        if name in named:
            raise ValueError(f"two arrays have the name {name}; rename one of them")
        named[name] = leaf
    return named


def _restore_target(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(
        jax.devices()[0]
    )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _steps(directory: Path) -> dict[int, Path]:
    found = {path: re.fullmatch(r"step-(\d{8,})", path.name) for path in directory.glob("step-*")}
    return {int(match[1]): path for path, match in found.items() if match}


def _remove_old(directory: Path) -> None:
    """Removes all but the newest `KEEP`, after the directory is flushed to disk."""
    seals.flush(directory)
    for _, old in sorted(_steps(directory).items())[:-KEEP]:
        _remove(old)


def _remove(path: Path) -> None:
    """Renames a checkpoint, then removes it, so that a kill leaves no partial checkpoint."""
    _delete(path.rename(path.with_name(path.name + _DOOMED)))


def _delete(path: Path) -> None:
    """Removes a folder, or the link to one."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)
