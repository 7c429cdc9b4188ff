"""`generate` has the output of `transformers`, streams text, and refuses mistakes clearly."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors

from experiments import generate
from experiments.systems.chat import render_chat
from experiments.systems.checkpoint_text import CheckpointTokenizer, special_ids

GOLDEN = Path(__file__).parents[1] / "data" / "hf"
READ = 13  # tokens of the prompts that transformers went on with


def words_of(ids) -> str:
    return " ".join(f"w{i}" for i in ids)


def expected(family="llama") -> list[str]:
    """What transformers said after each prompt of the golden file."""
    return [words_of(row) for row in np.load(GOLDEN / family / "expected.npz")["greedy"]]


def prompt(row: int, family="llama") -> str:
    return words_of(np.load(GOLDEN / family / "expected.npz")["tokens"][row])


@pytest.fixture
def folder(tmp_path):
    """The golden checkpoint, with a word for each id."""
    shutil.copytree(GOLDEN / "llama", tmp_path / "llama")
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(61)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "llama" / "tokenizer.json"))
    return tmp_path / "llama"


def run(folder, *arguments) -> None:
    assert generate.main(["--model", str(folder), *map(str, arguments)]) == 0


@pytest.fixture
def refusal(capsys):
    """A function from arguments to what the command says instead of a text."""

    def said(folder, *arguments) -> str:
        with pytest.raises(SystemExit) as stopped:
            run(folder, *arguments)
        return f"{stopped.value.code} {capsys.readouterr().err}"

    return said


def test_it_generates_what_transformers_generates(folder, capsys):
    run(folder, "--prompt", prompt(0), "--max-new-tokens", 12)
    said = capsys.readouterr()
    assert said.out == expected()[0] + "\n"
    assert "13 prompt tokens in" in said.err
    assert "12 generated tokens in" in said.err
    assert "1.0 a pass" in said.err


def test_two_prompts_are_continued_in_one_batch_with_a_draft_model(folder, capsys):
    guess = ("--draft", folder, "--draft-tokens", 3)  # itself: all its guesses are right
    run(folder, "--prompt", prompt(0), prompt(1), "--max-new-tokens", 12, *guess)
    said = capsys.readouterr()
    assert said.out.split("\n\n")[:2] == expected()
    assert "4.0 a pass" in said.err


def test_an_end_token_ends_the_text(folder, capsys):
    third = int(expected()[0].split()[READ + 2][1:])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [60, third]}))
    run(folder, "--prompt", prompt(0), "--max-new-tokens", 12)
    assert capsys.readouterr().out.split() == expected()[0].split()[: READ + 2]


def test_what_is_drawn_follows_from_the_seed(folder, capsys):
    texts = []
    for seed in (1, 1, 2):
        run(folder, "--prompt", "w3 w4", "--max-new-tokens", 8, "--temperature", 2, "--seed", seed)
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_an_empty_prompt_starts_with_the_start_token(folder, capsys, refusal):
    assert "'' has no tokens" in refusal(folder, "--prompt", "")
    (folder / "generation_config.json").write_text('{"bos_token_id": 5}')
    run(folder, "--prompt", "", "--max-new-tokens", 6)
    from_nothing = capsys.readouterr().out
    run(folder, "--prompt", "w5", "--max-new-tokens", 6)
    assert capsys.readouterr().out.split() == ["w5", *from_nothing.split()]


def test_characters_of_several_tokens_come_whole(tmp_path):
    words = byte_words(tmp_path)
    ids = words.ids("naïve 木")
    following = words.after(ids[:2])
    pieces = [following([i]) for i in ids[2:]]
    assert "".join(pieces) == "ïve 木"
    assert "\ufffd" not in "".join(pieces)


def byte_words(tmp_path) -> CheckpointTokenizer:
    """A tokenizer that has a token a byte."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["plain words"], vocab_size=257)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return CheckpointTokenizer.of(tmp_path)


def test_a_text_that_ends_inside_a_character_ends_as_a_full_decode(tmp_path):
    words = byte_words(tmp_path)
    ids = words.plain_ids("to 木")[:-1]
    following = words.after(ids[:2])
    pieces = [following([i]) for i in ids[2:]]
    assert pieces == [" ", "", ""]
    assert "to" + "".join(pieces) + following.rest() == words.tokenizer.decode(ids) == "to \ufffd"
    assert following.rest() == ""


def test_nothing_is_shown_from_a_stop_text_on(tmp_path):
    words = byte_words(tmp_path)
    following = words.after(words.plain_ids("a"), ["stop", "topping"])
    pieces = [following([i]) for i in words.plain_ids("b st. stopping c")]
    assert pieces[:6] == ["b", " ", "", "", "st.", " "]  # what may begin a stop text waits
    assert "".join(pieces) + following.rest() == "b st. "
    waits = words.after([], ["stop"])
    assert waits(words.plain_ids("sto")) == ""
    assert waits.rest() == "sto"


def test_a_stop_text_ends_the_text(folder, capsys):
    said = expected()[0].split()
    stop = f"{said[READ + 2]} {said[READ + 3]}"
    run(folder, "--prompt", prompt(0), "--max-new-tokens", 12, "--stop", stop)
    shown = capsys.readouterr()
    assert shown.out.rstrip() == expected()[0].split(f" {stop}")[0]
    assert "2 generated tokens" in shown.err


def with_begin(folder, token: int) -> None:
    """Lets the tokenizer begin each text with a token."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pair = [(f"w{token}", token)]
    tokenizer.post_processor = processors.TemplateProcessing(f"w{token} $A", None, pair)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_text_has_the_start_token_once(folder):
    with_begin(folder, 5)
    words = CheckpointTokenizer.of(folder)
    assert words.ids("w3 w4") == words.ids("w5 w3 w4") == [5, 3, 4]
    assert words.ids("w3 w3") == [5, 3, 3]


TEMPLATE = "{{ bos_token }}{% for m in messages %} {{ m.role | upper }} {{ m.content }}{% endfor %}"


@pytest.mark.parametrize("place", ["tokenizer_config.json", "a list", "chat_template.jinja"])
def test_a_chat_template_writes_the_prompt(place, folder, capsys):
    with_begin(folder, 5)
    tokens = {"bos_token": {"content": "w5"}}
    template = TEMPLATE.replace("m.role | upper", "'w7' if m.role == 'system' else 'w8'")
    if place == "a list":
        tokens["chat_template"] = [{"name": "default", "template": template}]
    else:
        tokens["chat_template"] = template if place == "tokenizer_config.json" else "wrong"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    if place == "chat_template.jinja":
        (folder / place).write_text(template)
    assert render_chat(folder, "w3", "w4") == "w5 w7 w4 w8 w3"
    if place == "tokenizer_config.json":
        run(folder, "--prompt", "w3", "--chat", "--system", "w4", "--max-new-tokens", 4)
        answer = capsys.readouterr().out
        run(folder, "--prompt", "w5 w7 w4 w8 w3", "--max-new-tokens", 4)
        assert capsys.readouterr().out.split() == ["w5", "w7", "w4", "w8", "w3", *answer.split()]


TEMPLATES = {
    "none": (None, "has no chat template"),
    "no template": ("{% for", "cannot be rendered"),
    "one that refuses": ("{{ raise_exception('no system, please') }}", "no system, please"),
    "one that reaches into Python": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "one that changes what it is given": ("{{ messages.append(1) }}", "unsafe"),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_that_cannot_be_rendered_is_refused(case, tmp_path):
    template, message = TEMPLATES[case]
    if template is not None:
        (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=message):
        render_chat(tmp_path, "hello")


MISTAKES = {
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), (), "has no tokenizer.json; write"),
    "no JSON": (lambda f: (f / "tokenizer.json").write_text("no"), (), "is no tokenizer"),
    "an end that is none": (
        lambda f: (f / "generation_config.json").write_text('{"eos_token_id": "end"}'),
        (),
        "must give eos_token_id as an id or a list of ids; got 'end'",
    ),
    "a damaged configuration": (
        lambda f: (f / "generation_config.json").write_text("{"),
        (),
        "generation_config.json is no JSON",
    ),
    "top_p 0": (None, ("--top-p", 0), r"top_p must be in (0, 1]; got 0.0"),
    "nothing to say": (None, ("--max-new-tokens", 0), "max_new_tokens must be at least 1; got 0"),
    "two that guess": (None, ("--lookup", 2, "--draft", "x"), "lookup and draft both propose"),
    "a lookup below 0": (None, ("--lookup", -1), "lookup must be at least 0; got -1"),
    "an empty stop": (None, ("--stop", ""), "stop has an empty text"),
    "a system without a chat": (None, ("--system", "x"), "system needs the chat template"),
    "a list of a configuration": (
        lambda f: (f / "generation_config.json").write_text("[]"),
        (),
        "generation_config.json must hold an object; got list",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), (), "safetensors"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_advice(mistake, folder, refusal):
    spoil, arguments, message = MISTAKES[mistake]
    if spoil is not None:
        spoil(folder)
    assert message in refusal(folder, "--prompt", "w1 w2", *arguments)


def test_special_ids_are_those_of_the_generation_before_those_of_the_model(tmp_path):
    assert special_ids(tmp_path, "eos_token_id") == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert special_ids(tmp_path, "eos_token_id") == (7,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    assert special_ids(tmp_path, "eos_token_id") == (8, 9)
