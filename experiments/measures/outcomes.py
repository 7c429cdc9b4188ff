"""What a run measures of one system, stored so that the same command does not measure it again."""

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import attn_jax
from attn_jax.models import EOS
from experiments.data.tokens import subwords
from experiments.measures.alignments import Alignment, Picks, group_by_word
from experiments.measures.scores import SystemOutput
from experiments.training.runs import OUTCOME, write_whole
from experiments.training.sentences import Vocabulary

FORMAT = 1
_END = "<end>"  # the label of EOS
_OVER_TARGET = ("target", "target_mask", "states", "contexts", "top_tokens", "top_log_probs")
_OVER_SOURCE = ("source", "source_mask", "annotations")
_OVER_BOTH = ("scores", "weights")


@dataclasses.dataclass(frozen=True)
class TracedSentence:
    """One translation, and what the decoder computed at each of its steps.

    Attributes:
      title: where the sentence is from.
      source: the source's subwords.
      target: the subwords of the translation, and the end.
      source_words: for each source subword, the number of its word.
      target_words: the same for the target.
      labels: the texts of the target ids in `top_tokens`.
      fields: those of an `attn_jax.models.Trace` without padding, and `annotations`.
    """

    title: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    source_words: tuple[int, ...]
    target_words: tuple[int, ...]
    labels: Mapping[int, str]
    fields: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        title: str,
        vocabulary: Vocabulary,
        source: Sequence[int],
        target: Sequence[int],
        fields: Mapping[str, np.ndarray],
    ) -> "TracedSentence":
        """The traced sentence of a translation, without EOS, and of its trace, with padding."""
        S, T = len(source), len(target) + 1
        parts = {
            **{name: fields[name][:T] for name in _OVER_TARGET},
            **{name: fields[name][:S] for name in _OVER_SOURCE},
            **{name: fields[name][:T, :S] for name in _OVER_BOTH},
        }
        english, french = subwords(vocabulary.english, source), subwords(vocabulary.french, target)
        words = group_by_word(french)[0]
        shown = [i for i in np.unique(parts["top_tokens"]).tolist() if i != EOS]
        texts = subwords(vocabulary.french, shown)
        return cls(
            title,
            tuple(english),
            (*french, _END),
            tuple(group_by_word(english)[0]),
            (*words, max(words, default=-1) + 1),
            {EOS: _END, **dict(zip(shown, texts, strict=True))},
            parts,
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A system's part of the report.

    Attributes:
      output: the translations of the test sentences, training time and size.
      lecture: the translation of the lecture's sentence.
      picks: alignments of test sentences; None without attention.
      lecture_alignment: of the lecture's sentence; None without attention.
      traced: sentences for the animation; empty for the word-by-word system.
    """

    output: SystemOutput
    lecture: str
    picks: Picks | None = None
    lecture_alignment: Alignment | None = None
    traced: tuple[TracedSentence, ...] = ()


def sources_digest(folders: Iterable[Path]) -> str:
    """A hash of all Python files in folders: their paths and contents."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


@functools.cache
def code_digest() -> str:
    """A hash of the code that measures: the packages attn_jax and experiments."""
    own = Path(__file__).resolve().parents[1]
    return sources_digest([Path(attn_jax.__path__[0]), own])


def store(directory: Path, key: Mapping[str, Any], outcome: Outcome) -> None:
    """Writes an outcome to the directory of its system.

    Args:
      directory: where `load` finds it.
      key: everything that the outcome depends on, as JSON.
      outcome: to be written.
    """
    content = {"format": FORMAT, "key": dict(key), "outcome": outcome}
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, default=_as_json)
    write_whole(directory / OUTCOME, text.encode())


def load(directory: Path, key: Mapping[str, Any]) -> Outcome | None:
    """The stored outcome with that key; None if there is none, or another key or version."""
    path = directory / OUTCOME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=_array_or_object)
        if content["format"] != FORMAT or content["key"] != json.loads(json.dumps(key)):
            return None
        return _outcome(content["outcome"])
    except (ValueError, KeyError, TypeError):  # damaged; the outcome is measured again
        return None


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value)).decode()
        return {"dtype": str(value.dtype), "shape": value.shape, "base64": data}
    return vars(value)  # a dataclass


def _array_or_object(content: dict[str, Any]) -> Any:
    if content.keys() != {"dtype", "shape", "base64"}:
        return content
    data = np.frombuffer(base64.b64decode(content["base64"]), content["dtype"])
    return data.reshape(content["shape"])


def _outcome(content: dict[str, Any]) -> Outcome:
    output, picks, alignment = (content[n] for n in ("output", "picks", "lecture_alignment"))
    facts: dict[str, Any] = {**output, "translations": tuple(output["translations"])}
    return Outcome(
        SystemOutput(**facts),
        content["lecture"],
        None if picks is None else _picks(picks),
        None if alignment is None else _alignment(alignment),
        tuple(map(_traced, content["traced"])),
    )


def _picks(content: dict[str, Any]) -> Picks:
    alignments = tuple(map(_alignment, content["alignments"]))
    return Picks(alignments, content["rule"], tuple(content["places"]))


def _alignment(content: dict[str, Any]) -> Alignment:
    words = tuple(content["source"]), tuple(content["generated"])
    return Alignment(*words, content["weights"], content["masked"])


def _traced(content: dict[str, Any]) -> TracedSentence:
    names = ("source", "target", "source_words", "target_words")
    facts: dict[str, Any] = {**content, **{name: tuple(content[name]) for name in names}}
    facts["labels"] = {int(i): label for i, label in content["labels"].items()}
    return TracedSentence(**facts)
