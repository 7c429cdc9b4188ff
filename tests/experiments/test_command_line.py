"""What all programs share: options, names of runs, and the commands in texts."""

import errno
import importlib.util
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import tyro

from experiments import generate, grammar, length, lm, sort, translate
from experiments.command_line import errors, options
from experiments.gallery import __main__ as gallery
from experiments.reports.sample import Sample
from experiments.training import lm_settings, runs, settings

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "gallery": gallery,
    "grammar": grammar,
    "length": length,
    "lm": lm,
    "sort": sort,
    "translate": translate,
}


def settings_of(name: str, arguments: list[str]):
    """The settings that a program makes of its command line."""
    if name == "translate":
        return settings.from_command_line(arguments)
    if name == "lm":
        return lm_settings.from_command_line(arguments)
    return options.choose_settings(name, "", PROGRAMS[name].PRESETS, arguments)


def refusal(function, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        function(*arguments)
    return str(stopped.value)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("bad", ["", "..", "../../evil", "/tmp/evil", "a/b"])
def test_a_run_stays_in_its_own_folder(name, bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal(PROGRAMS[name].main, ["--preset", "smoke", "--name", bad])
    assert said.startswith(f"error: name={bad!r} must be the name of one folder in runs/")
    assert not [*tmp_path.iterdir()]


def test_a_name_is_a_folder_of_runs():
    assert runs.directory_of("a b.c") == Path("runs/a b.c")
    elsewhere = [
        path for path in (ROOT / "experiments").rglob("*.py") if '"runs"' in path.read_text()
    ]
    assert [path.name for path in elsewhere] == ["runs.py"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_preset_may_be_given_with_an_equals_sign(name):
    smoke = settings_of(name, ["--preset=smoke"])
    assert smoke == settings_of(name, ["--preset", "smoke"])
    assert smoke != settings_of(name, [])


def test_a_recipe_may_be_given_with_an_equals_sign():
    nanogpt = settings_of("lm", ["--recipe=nanogpt", "--preset=smoke"])
    assert nanogpt == settings_of("lm", ["--preset", "smoke", "--recipe", "nanogpt"])
    assert nanogpt.name == "lm-moby_dick-char-nanogpt-smoke"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lm", "--sizes.num-heads 3"),
        ("lm", "--sizes.num-heads 0"),
        ("lm", "--sizes.num-heads 2 --sizes.model-dim 6"),
        ("sort", "--num-heads 5"),
        ("translate", "--transformer.num-heads 3"),
    ],
)
def test_an_error_names_options_that_exist(name, options, capsys):
    with pytest.raises(SystemExit):
        settings_of(name, options.split())
    told = capsys.readouterr()
    said = " ".join((told.out + told.err).replace("│", " ").split())
    spoken = {*re.findall(r"\b([a-z_]+)=", said), *re.findall(r"pass ([a-z_]+)", said)}
    assert {"num_heads", "model_dim"} <= spoken
    with pytest.raises(SystemExit):
        settings_of(name, ["--help"])
    offered = re.findall(r"--(?:\w+\.)?([\w-]+)", capsys.readouterr().out)
    assert spoken <= {option.replace("-", "_") for option in offered}


def test_the_interpreter_is_named_as_a_shell_here_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", {"python3": "/usr/bin/python3"}.get)
    for executable, called in (
        (str(tmp_path / ".venv/bin/python"), ".venv/bin/python"),
        ("/usr/bin/python3", "python3"),
        ("/opt/two words/python", "'/opt/two words/python'"),
    ):
        monkeypatch.setattr(sys, "executable", executable)
        command = options.shell_command("sort", ["--name", "a b"])
        assert command == f"{called} -m experiments.sort --name 'a b'"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EROFS, "Read-only file system; run the same command in a folder"),
        (errno.EACCES, "Permission denied; make it readable and writable"),
    ],
)
def test_an_error_of_the_system_comes_with_a_remedy(number, remedy):
    def fail():
        with errors.exit_on_user_error():
            raise OSError(number, os.strerror(number), "runs/a/report.md")

    assert refusal(fail).startswith(f"error: runs/a/report.md: {remedy}")


def commands() -> list[tuple[str, str]]:
    """What the pages and the heads of programs tell people to type: where, and the command."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    pages += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md")]
    texts = {path.name: path.read_text("utf-8") for path in pages}
    for path in (ROOT / "experiments").rglob("*.py"):
        texts[path.name] = path.read_text("utf-8")
    return [
        (name, command)
        for name, text in sorted(texts.items())
        for command in re.findall(r"([^\s`]*python -m [a-z][^`\n]+)", text)
    ]


@pytest.mark.parametrize(("where", "command"), commands())
def test_a_command_that_is_shown_can_be_pasted(where, command, capsys):
    program, _, module, *arguments = shlex.split(command, comments=True)
    assert program == ".venv/bin/python"
    assert importlib.util.find_spec(module)
    package, _, name = module.partition(".")
    if package != "experiments" or "$JOIN" in arguments:
        return
    if name in PROGRAMS and arguments[:1] != ["sample"]:
        settings_of(name, arguments)
    elif name == "generate":
        tyro.cli(generate.Options, args=arguments)
    elif name == "translate":
        tyro.cli(Sample, args=arguments[1:])
