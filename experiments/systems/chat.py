"""A message formatted by a checkpoint's chat template, in Jinja's sandbox."""

import datetime
import importlib
import json
from pathlib import Path
from typing import Any, NoReturn

from experiments.systems.checkpoint_text import read_object


def render_chat(folder: Path, message: str, system: str = "") -> str:
    """A user's message as a prompt for the model.

    A template is a program of the checkpoint. It runs in the sandbox of jinja2, where it cannot
    change values or access Python's internal attributes.

    Raises:
      ValueError: there is no template, it is invalid, or it raises an error for the message.
    """
    jinja2, sandbox = (importlib.import_module(name) for name in ("jinja2", "jinja2.sandbox"))
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    before = [("system", system)] if system else []
    messages = [{"role": role, "content": text} for role, text in [*before, ("user", message)]]
    try:
        template = environment.from_string(_template(folder))
        return template.render(
            messages=messages, add_generation_prompt=True, **_special_tokens(folder)
        )
    except (jinja2.TemplateError, ArithmeticError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"{folder}: its chat template cannot be rendered: {error}") from error


def _template(folder: Path) -> str:
    """chat_template.jinja if it exists, else the entry in tokenizer_config.json."""
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
            "tokenizer_config.json; leave --chat out, and format the prompt yourself"
        )
    return template


def _special_tokens(folder: Path) -> dict[str, str]:
    """Special tokens by name, such as bos_token, for the template."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        named = read_object(folder / name) if (folder / name).exists() else {}
        for key, token in named.items():
            content = token.get("content") if isinstance(token, dict) else token
            if key.endswith("_token") and isinstance(content, str):
                tokens[key] = content
    return tokens


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON without HTML escapes; Jinja's own filter has them."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    jinja2 = importlib.import_module("jinja2")
    raise jinja2.TemplateError(message)


def _now(format: str) -> str:
    return datetime.datetime.now().strftime(format)
