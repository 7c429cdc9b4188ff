import dataclasses
import io
import itertools
import json
import math
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tyro
from rich.console import Console
from tiny_task import CONFIG, dataset, fingerprint, init, loss, task, untimed

from experiments.training import progress, runs
from experiments.training.checkpoints import CheckpointCorrupt, CheckpointMismatch
from experiments.training.session import Session
from experiments.training.train import TrainConfig, fit, load_params
from experiments.training.update import initial_state, learning_rate_schedule, update


def changed(**changes):
    return dataclasses.replace(CONFIG, **changes)


def log_console():
    return Console(file=io.StringIO(), force_terminal=False, width=60)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, and what it said."""
    directory, console = tmp_path_factory.mktemp("trained"), log_console()
    result = fit(task(), CONFIG, directory, console=console)
    return SimpleNamespace(directory=directory, result=result, said=console.file.getvalue())


def test_training_lowers_the_loss(trained):
    losses = [line["loss"] for line in untimed(trained.result.history)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_each_metrics_line_sums_up_the_steps_since_the_one_before(trained):
    lines = [json.loads(line) for line in trained.result.history.read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(3, 20, 3), 20, *range(21, 40, 3), 40]
    names = "step loss tokens tokens_per_second learning_rate grad_norm seconds"
    assert all(" ".join(list(line)[:7]) == names for line in lines)
    assert all(line["tokens_per_second"] > 0 for line in lines)
    validated = [line["step"] for line in lines if "validation_norm" in line]
    assert validated == [20, 40]
    assert lines[-1]["validation_norm"] == float(jnp.abs(trained.result.params["second"]).sum())


def test_the_loop_is_the_update_applied_to_each_batch_in_order(trained):
    state = jax.jit(lambda: initial_state(init, CONFIG))()
    step = jax.jit(lambda state, batch: update(loss, CONFIG, state, batch))
    losses, tokens = [], []
    for _, batch in zip(range(CONFIG.steps), dataset(), strict=False):
        state, measured = step(state, batch)
        losses.append(float(measured["loss"]))
        tokens.append(float(measured["tokens"]))
    assert fingerprint(state.params) == fingerprint(trained.result.params)
    begin = 0
    for line in untimed(trained.result.history):
        end = line["step"]
        mean = np.average(losses[begin:end], weights=tokens[begin:end])
        assert line["loss"] == pytest.approx(mean, rel=1e-12)
        assert line["tokens"] == sum(tokens[:end])
        begin = end


def test_each_shape_is_compiled_once_and_announced(trained):
    assert trained.said.count("compiling for x float32[4,3], y float32[4] …") == 1
    assert trained.said.count("compiling for x float32[5,3], y float32[5] …") == 1
    assert trained.said.count("compiling (") == 2


def test_a_log_shows_life_and_the_end(trained):
    first, *_, last = trained.said.splitlines()
    assert first == f"training tiny: 40 steps, in {trained.directory}"
    assert last.startswith("step 40/40 · loss ")
    assert last.endswith(" elapsed · 0:00:00 left")
    assert "tokens/s" in last


def test_a_finished_run_returns_at_once_with_the_same_bits(trained):
    console = log_console()
    again = fit(
        task(loss=lambda *_: pytest.fail("trained again")),
        CONFIG,
        trained.directory,
        console=console,
    )
    assert console.file.getvalue().startswith("already trained: tiny, 40 steps in ")
    assert fingerprint(again.params) == fingerprint(trained.result.params)
    assert untimed(again.history) == untimed(trained.result.history)
    assert again.seconds == pytest.approx(trained.result.seconds, abs=1.0)


def test_params_can_be_loaded_alone(trained):
    params = load_params(trained.directory, jax.eval_shape(init, jax.random.key(0)))
    assert fingerprint(params) == fingerprint(trained.result.params)
    assert runs.read_config(trained.directory)["config"]["model"] == {"hidden_dim": 6}


def test_loading_where_nothing_was_trained_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint yet; train first"):
        load_params(tmp_path, {})


def test_another_config_is_refused_and_every_difference_named(trained):
    expected = (
        r"holds another run: model\.hidden_dim 6 in the checkpoint, 7 requested; "
        r"train\.learning_rate 0\.05 in the checkpoint, 0\.5 requested\. "
        r"Choose another --name or pass --fresh$"
    )
    with pytest.raises(CheckpointMismatch, match=expected):
        fit(task(hidden_dim=7), changed(learning_rate=0.5), trained.directory)


def test_fresh_starts_again_with_another_config(trained, tmp_path):
    copy = shutil.copytree(trained.directory, tmp_path / "copy")
    config = changed(steps=6, warmup_steps=1)
    result = fit(task(hidden_dim=7), config, copy, fresh=True)
    assert result.params["first"].shape == (3, 7)
    assert [line["step"] for line in untimed(result.history)] == [3, 6]


def first_update(config, params, loss):
    """The state after one update of `params`, and what the update measured."""
    state = initial_state(lambda key: params, config)
    return jax.jit(partial(update, loss, config))(state, {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimiser": "adam"}, 3.0 - 0.5),  # Adam's first step is the rate, whatever the gradient
        ({"optimiser": "adamw", "weight_decay": 0.1}, 3.0 - 0.5 - 0.5 * 0.1 * 3.0),
        # Zeiler's is sqrt(eps) / sqrt((1 - rho) g² + eps) · g, here with g = 2
        ({"optimiser": "adadelta"}, 3.0 - 0.5 * math.sqrt(1e-6 / (0.05 * 4.0 + 1e-6)) * 2.0),
    ],
)
def test_each_optimiser_follows_its_paper(changes, expected):
    config = changed(learning_rate=0.5, warmup_steps=0, clip_norm=100.0, **changes)
    params = {"w": jnp.asarray([3.0])}
    after, _ = first_update(config, params, lambda p, *_: (2.0 * p["w"].sum(), {}))
    np.testing.assert_allclose(after.params["w"] - params["w"], [expected - 3.0], rtol=1e-4)


def test_gradients_are_clipped_after_their_norm_is_measured():
    config = changed(optimiser="adadelta", clip_norm=0.25, warmup_steps=0)
    slope = jnp.asarray([3.0, 4.0])
    after, measured = first_update(config, {"w": jnp.ones(2)}, lambda p, *_: (p["w"] @ slope, {}))
    np.testing.assert_allclose(measured["grad_norm"], 5.0)
    seen = optax.tree.get(after.opt_state, "e_g")["w"]  # 0.05 g², where |g| = 0.25
    np.testing.assert_allclose(seen, 0.05 * np.square([0.15, 0.2]), rtol=1e-6)


def test_each_step_has_a_random_key_of_its_own_that_is_not_the_one_of_the_params():
    def keep_key(params, batch, key):
        return jnp.sum(params["w"]), {"key": jax.random.key_data(key)}

    seen = []

    def init_keeping_key(key):
        seen.append(jax.random.key_data(key))
        return {"w": jnp.ones(2)}

    state = initial_state(init_keeping_key, CONFIG)
    step = jax.jit(partial(update, keep_key, CONFIG))
    for _ in range(3):
        state, measured = step(state, {})
        seen.append(measured["key"])
    assert len({tuple(np.asarray(key).tolist()) for key in seen}) == 4


def test_params_are_never_weakly_typed_because_a_checkpoint_does_not_keep_it():
    state = initial_state(lambda key: {"w": jnp.asarray(2.0)}, CONFIG)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state.params))


def test_the_state_is_donated_so_memory_holds_it_once(tmp_path):
    session = Session(task(), CONFIG, tmp_path, progress.Progress(log_console()))
    before = session.state
    session.advance()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def test_the_rate_warms_up_decays_and_is_never_zero():
    config = changed(learning_rate=1.0, final_learning_rate=0.1, warmup_steps=4, steps=20)
    rate = np.array([learning_rate_schedule(config)(step) for step in range(20)])
    np.testing.assert_allclose(rate[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert (np.diff(rate[4:]) < 0).all()
    assert rate[-1] == pytest.approx(0.1, abs=0.01)


def test_equal_first_and_final_rates_make_it_constant():
    config = changed(learning_rate=1.0, final_learning_rate=1.0, warmup_steps=0)
    assert {float(learning_rate_schedule(config)(step)) for step in range(40)} == {1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"warmup_steps": 40}, "warmup_steps must be at least 0 and below steps=40, got 40"),
        ({"final_learning_rate": 0.2}, "final_learning_rate must lie between"),
        ({"weight_decay": 0.1}, "needs optimiser='adamw', got 'adam'"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        changed(**changes)


def test_the_config_is_a_command_line():
    config = tyro.cli(TrainConfig, args=["--optimiser", "adadelta", "--clip-norm", "0.5"])
    assert config == TrainConfig(optimiser="adadelta", clip_norm=0.5)


def test_a_loss_that_is_not_finite_stops_and_names_the_step_and_the_checkpoint(tmp_path):
    count = itertools.count(1)

    def poison(batch):
        return batch | {"y": batch["y"] * np.float32(np.nan if next(count) == 11 else 1)}

    expected = r"loss is nan at step 11; the last good checkpoint is 7 in .*--fresh"
    with pytest.raises(FloatingPointError, match=expected):
        fit(task(dataset=dataset(shapes=1).map(poison)), CONFIG, tmp_path)


def test_a_validation_that_is_not_finite_stops_too(tmp_path):
    with pytest.raises(FloatingPointError, match="validation_bleu is nan at step 20"):
        fit(
            task(validate=lambda _: {"bleu": math.nan}, dataset=dataset(shapes=1)), CONFIG, tmp_path
        )


def test_a_dataset_that_ends_is_an_error_with_a_remedy(tmp_path):
    finite = dataset(epochs=1, shapes=1)
    with pytest.raises(ValueError, match=r"tiny ended after step 30; \.repeat\(\) it"):
        fit(task(dataset=finite), CONFIG, tmp_path)


def test_a_dataset_whose_position_json_cannot_keep_is_refused_before_the_first_step(tmp_path):
    session = Session(task(), CONFIG, tmp_path, progress.Progress(log_console()))
    for position in (b"pickled", {1: 2}):
        session.batches = SimpleNamespace(get_state=lambda position=position: position)
        with pytest.raises(
            ValueError, match="which JSON cannot represent; use a grain IterDataset"
        ):
            session.start()


def test_a_disk_too_small_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"the checkpoints of this run need about 0\.0 MB"):
        fit(task(loss=lambda *_: pytest.fail("a step was made")), CONFIG, tmp_path)


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(trained, tmp_path):
    copy = shutil.copytree(trained.directory, tmp_path / "copy")
    for path in copy.glob("checkpoints/*/state.json"):
        path.write_text("{}")
    before = sorted(copy.rglob("*"))
    with pytest.raises(CheckpointCorrupt, match=r"sha256 of state\.json differs"):
        fit(task(), CONFIG, copy)
    assert sorted(copy.rglob("*")) == before


def test_a_terminal_gets_a_bar(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    fit(task(), changed(steps=6, warmup_steps=1), tmp_path, console=console)
    assert "━" in console.file.getvalue()
    assert "step 6/6" in console.file.getvalue()


def test_progress_prints_every_few_seconds_and_excludes_compiling_from_the_estimate():
    console, now = log_console(), SimpleNamespace(seconds=100.0)
    shown = progress.Progress(console, clock=lambda: now.seconds)
    shown.start(1000, 3000)
    for step in range(1001, 1021):
        now.seconds += 61.0 if step == 1001 else 1.0
        if step == 1001:
            shown.exclude(60.0)
        shown.measured(3.14159, 5300.0)
        shown.step(step)
    steps = [line.split("/")[0] for line in console.file.getvalue().splitlines()]
    assert steps == ["step 1,001", "step 1,006", "step 1,011", "step 1,016"]
    assert console.file.getvalue().splitlines()[-1] == (
        "step 1,016/3,000 · loss 3.142 · 5,300 tokens/s · 0:01:16 elapsed · 0:33:04 left"
    )
