"""A message as a checkpoint's chat template writes it, rendered in Jinja's sandbox."""

import datetime
import importlib
import json
from pathlib import Path
from typing import Any, NoReturn

from experiments.systems.checkpoint_text import read_object


def rendered(folder: Path, message: str, system: str = "") -> str:
    """A user's message as text for the model, up to where its answer begins.

    A template is a program of the checkpoint: it runs in the sandbox of jinja2, which lets it
    change nothing and reach no attribute of Python's own.

    Raises:
      ValueError: there is no template, it is none, or it refuses the message.
    """
    jinja2, sandbox = (importlib.import_module(name) for name in ("jinja2", "jinja2.sandbox"))
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    said = [("system", system)] if system else []
    messages = [{"role": role, "content": text} for role, text in [*said, ("user", message)]]
    try:
        template = environment.from_string(_template(folder))
        return template.render(
            messages=messages, add_generation_prompt=True, **_special_tokens(folder)
        )
    except (jinja2.TemplateError, ArithmeticError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"{folder}: its chat template cannot be rendered: {error}") from error


def _template(folder: Path) -> str:
    """The file of its own before that of tokenizer_config.json, as in `transformers`."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = read_object(config).get("chat_template") if config.exists() else None
    if isinstance(template, list):  # several, each with its name
        named = {one["name"]: one["template"] for one in template}
        template = named.get("default")
    if not isinstance(template, str):
        raise ValueError(
            f"{folder} has no chat template, neither in chat_template.jinja nor in "
            "tokenizer_config.json; leave --chat out, and write the prompt as the model wants it"
        )
    return template


def _special_tokens(folder: Path) -> dict[str, str]:
    """Tokens that templates write, such as bos_token."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        named = read_object(folder / name) if (folder / name).exists() else {}
        for key, token in named.items():
            content = token.get("content") if isinstance(token, dict) else token
            if key.endswith("_token") and isinstance(content, str):
                tokens[key] = content
    return tokens


def _to_json(value: Any, indent: int | None = None) -> str:
    """Without the escapes for HTML that Jinja's own filter writes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    jinja2 = importlib.import_module("jinja2")
    raise jinja2.TemplateError(message)


def _now(format: str) -> str:
    return datetime.datetime.now().strftime(format)
