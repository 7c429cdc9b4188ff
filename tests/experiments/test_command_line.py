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

from experiments import __main__ as listing
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
OWN_PRESETS = {"gallery", "grammar", "length", "sort"}
ALL_PRESETS = ("quick", "smoke", "full")


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
        (errno.EROFS, "Read-only file system; copy this folder to a disk that can be written"),
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
        options.parse(generate.Options, arguments)
    elif name == "translate":
        options.parse(Sample, arguments[1:])


def help_of(name: str, capsys) -> str:
    """The help of a program, without the frames."""
    kinds = {"generate": generate.Options, "sample": Sample}
    with pytest.raises(SystemExit):
        options.parse(kinds[name], ["--help"]) if name in kinds else settings_of(name, ["--help"])
    return " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_preset_is_among_the_options_of_the_help(name, capsys):
    shown = help_of(name, capsys)
    choices = ",".join(PROGRAMS[name].PRESETS if name in OWN_PRESETS else ALL_PRESETS)
    assert f"--preset {{{choices}}} the " in shown
    assert "(default: quick)" in shown


@pytest.mark.parametrize("name", [*PROGRAMS, "generate", "sample"])
def test_every_option_is_explained_by_a_phrase_that_starts_with_its_noun(name, capsys):
    shown = help_of(name, capsys)
    texts = re.findall(r"--[a-z][\w.-]*(?: [{\[A-Z]\S*(?: \[?STR[ .\]]*)*)? ([a-z]+)", shown)
    assert len(texts) >= 4
    assert not {*texts} & {"of", "to", "in", "for", "with", "by", "m", "n"}, texts


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_preset_that_does_not_exist_is_refused_with_the_known_ones(name, capsys):
    with pytest.raises(SystemExit):
        settings_of(name, ["--preset=huge"])
    told = capsys.readouterr()
    assert "invalid choice 'huge' for argument '--preset'" in told.out + told.err


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_flag_may_be_given_with_a_value(name):
    assert settings_of(name, ["--fresh=true"]).fresh
    assert settings_of(name, ["--fresh"]).fresh
    assert not settings_of(name, ["--fresh", "--fresh=False"]).fresh


def test_every_preset_names_itself():
    tables = [program.PRESETS for key, program in PROGRAMS.items() if key in OWN_PRESETS]
    tables += [settings.PRESETS, *lm_settings.PRESETS.values()]
    assert all(preset.preset == name for table in tables for name, preset in table.items())


def test_a_default_with_a_newline_is_shown_escaped(capsys):
    assert r"the text that the samples continue. (default: '\n')" in help_of("lm", capsys)


def test_sample_is_listed_among_the_commands(capsys):
    assert "commands: sample translates a sentence of yours" in help_of("translate", capsys)


def test_an_unknown_command_is_refused_with_the_known_ones():
    said = refusal(translate.main, ["samlpe", "A file."])
    assert said.startswith("error: 'samlpe' is no option of translate, and the only command is")
    assert "it has no commands" in refusal(sort.main, ["sample"])


def test_the_list_of_programs_has_each_with_its_command(capsys):
    listing.main([])
    listed = capsys.readouterr().out
    for name in (*PROGRAMS, "generate"):
        assert f"{options.shell_command(name)}\n    " in listed
    listing.main(["--help"])
    assert capsys.readouterr().out == listed
    said = refusal(listing.main, ["sort", "--preset=smoke"])
    assert said == f"error: run it as {options.shell_command('sort', ['--preset=smoke'])}"
    assert "'sorting' is no program; choose from translate, " in refusal(listing.main, ["sorting"])
