"""The package structure as tests: which layer imports which, how long files and functions are."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "attn_jax").rglob("*.py"))

# The layers, lowest first: a file may import from layers before its own and from no other.
# structure.py draws them in docs/architecture.md.
LAYERS = [
    "_version",
    "_base.needs_flax",
    "_base.young_jax",
    "_base.concrete",
    "_base.describe",
    "_base.notebook",
    "_base.distance",
    "_base.checks",
    "_base.numerics",
    "_base.sharding",
    "_base.value",
    "_base.log",
    "_base.fingerprint",
    "_base.hoist",
    "_base.tables",
    "_base.axes",
    "_base.leading",
    "_base.grid",
    "masks",
    "_block_mask",
    "score_mods",
    "scores",
    "positions",
    "_dropout",
    "_merge",
    "_engine.rules",
    "_engine.call",
    "_engine.measured_tiles",
    "_engine.tile_shape",
    "_engine.tpu_tiles",
    "_engine.operation",
    "_engine.partition",
    "_engine.cut",
    "_engine.matmul",
    "_engine.fold",
    "_engine.tile",
    "_engine.tile_sum",
    "_engine.online_softmax",
    "_engine.kernels",
    "_engine.dispatch",
    "_engine.attention",
    "_engine.one_head",
    "_attend",
    "_stats",
    "_heads",
    "_multi_head",
    "_multi_head_logsumexp",
    "_multi_head_stats",
    "caches",
    "_tune",
    "_rule_cost",
    "_roofline",
    "_prediction",
    "_target",
    "_explain",
    "lecture.functions",
    "lecture.layers",
    "_lineage",
    "viewer",
    "modules",
    "models",
    "benchmark",
]
# Folders whose files may import each other.
PACKAGES = {
    "_engine.rules",
    "masks",
    "score_mods",
    "positions",
    "caches",
    "modules",
    "models",
    "benchmark",
    "viewer",
}
# Folders of one kernel each, whose files may import each other too.
KERNEL_PACKAGES = {"_engine/kernels/mosaic_tpu"}
# Folders in which each file is a layer of its own.
SPLIT = {"_base", "_engine", "lecture"}
# Files over 300 lines, each with the number of the ADR that says why.
LONG_FILES: dict[str, str] = {}
DEV_TOOLS = {
    "flax",
    "optax",
    "grain",
    "orbax",
    "tokenizers",
    "sacrebleu",
    "tyro",
    "matplotlib",
    "rich",
    "beartype",
}


# The same for experiments/ (experiments/__init__.py); QUESTIONS are the programs at its top.
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))
SOURCES = [*LIBRARY, *EXPERIMENTS]
QUESTIONS = "questions"
EXPERIMENT_FLOORS = [
    "command_line",
    "data",
    "systems",
    "training",
    "measures",
    "reports",
    QUESTIONS,
    "gallery",
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, `from a import b` given as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(path: Path) -> str:
    """The layer of a library file: its folder, or its own name."""
    return _layer(path.relative_to(ROOT / "attn_jax").with_suffix("").parts)


def layers_imported(path: Path) -> set[str]:
    return {_layer(name.split(".")[1:]) for name in imports(path) if name.startswith("attn_jax.")}


def _layer(parts: Sequence[str]) -> str:
    return ".".join(parts[:2]) if parts[0] in SPLIT else parts[0]


def test_every_library_file_belongs_to_a_layer():
    layers = {layer_of(path) for path in LIBRARY if path.name != "__init__.py"}
    assert layers - {"conftest"} == set(LAYERS)


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if layer_of(path) in LAYERS], ids=relative
)
def test_imports_point_down(path):
    here = layer_of(path)
    is_of_package = here in PACKAGES or kernel_of(path) in KERNEL_PACKAGES
    for other in layers_imported(path):
        assert other in LAYERS, f"{relative(path)} imports attn_jax.{other}, which is no layer"
        inside = other == here and is_of_package
        assert inside or LAYERS.index(other) < LAYERS.index(here), f"{here} imports {other}"


def kernel_of(path: Path) -> str:
    """The file or folder of the kernel that a file belongs to, without .py."""
    parts = path.relative_to(ROOT / "attn_jax").with_suffix("").parts
    return "/".join(parts[:3])


def test_kernels_never_import_each_other():
    kernels = ROOT / "attn_jax" / "_engine" / "kernels"
    paths = [path for path in kernels.rglob("*.py") if path != kernels / "__init__.py"]
    assert {kernel_of(path) for path in paths} >= KERNEL_PACKAGES
    for path in paths:
        own = "attn_jax." + kernel_of(path).replace("/", ".")
        others = {name for name in imports(path) if name.startswith("attn_jax._engine.kernels")}
        assert all(f"{name}.".startswith(f"{own}.") for name in others), relative(path)


# What kernels are written in may be imported by them directly, at their first use.
PALLAS = ("jax.experimental.pallas",)
YOUNG = ("jax.experimental", "jax.extend", "jax._src")
YOUNG_NAMES = {"auto_axes", "pcast", "manual_axis_type", "explicit_axes"}


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_young_parts_of_jax_stand_behind_one_file(path):
    if layer_of(path) == "_base.young_jax":
        return
    allowed = PALLAS if layer_of(path) == "_engine.kernels" else ()
    young = {name for name in imports(path) if name.startswith(YOUNG)}
    assert not [name for name in young if not name.startswith(allowed)]
    used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "attr")}
    assert not used & YOUNG_NAMES


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_flax_stays_in_modules_models_and_what_measures_them(path):
    uses_flax = any(name.split(".")[0] == "flax" for name in imports(path))
    assert not uses_flax or layer_of(path) in {
        "lecture.layers",
        "modules",
        "models",
        "benchmark",
        "conftest",
    }


def modules_after(program: str) -> set[str]:
    """The names of all modules that are loaded after a program, run in a new process."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_importing_attn_jax_imports_no_flax_no_tool_and_no_pallas():
    """Pallas takes longer to import than the library itself."""
    loaded = modules_after("import attn_jax")
    assert "jax" in loaded
    assert not {name.split(".")[0] for name in loaded} & DEV_TOOLS
    assert not [name for name in loaded if name.startswith("jax.experimental.pallas")]


_CALL = """
import attn_jax, jax.numpy as jnp
x = jnp.ones((256, 8))
attn_jax.attend(x, x, x)
"""


def test_a_call_off_a_tpu_imports_no_pallas():
    assert not [name for name in modules_after(_CALL) if name.startswith("jax.experimental.pallas")]


_LATER = """
import sys
import attn_jax
later = ("benchmark", "models", "modules", "viewer")
assert {*later, "attend", "__version__"} <= {*dir(attn_jax)}
assert attn_jax.__version__[0].isdigit()
assert not [name for name in later if f"attn_jax.{name}" in sys.modules]
assert attn_jax.viewer.AttentionView
assert attn_jax.lecture.self_attention
assert "SelfAttention" in dir(attn_jax.lecture)
assert "flax" not in sys.modules
assert attn_jax.lecture.SelfAttention is attn_jax.modules.SelfAttention
assert attn_jax.modules.MultiHeadAttention
assert attn_jax.models.GPT
assert attn_jax.benchmark is sys.modules["attn_jax.benchmark"]
try:
    attn_jax.module
except AttributeError as error:
    print(error)
"""


def test_packages_that_need_flax_are_imported_at_first_use():
    run = subprocess.run(
        [sys.executable, "-c", _LATER], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout == "module 'attn_jax' has no attribute 'module'\n", run.stderr


def test_the_version_is_that_of_the_source_tree_or_else_the_installed_one(tmp_path, monkeypatch):
    from attn_jax import _version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert _version.version() == project["version"]
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "7"\n')
    monkeypatch.setattr(_version.importlib.metadata, "version", {"attn-jax": "1.2"}.__getitem__)
    assert _version.version(tmp_path / "attn_jax") == "1.2"
    monkeypatch.undo()
    monkeypatch.setattr(_version, "_NAME", "attn-jax-that-nobody-installed")
    assert _version.version(tmp_path / "attn_jax") == _version.UNKNOWN


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_are_short_or_an_adr_says_why(path):
    lines = len(path.read_text().splitlines())
    if adr := LONG_FILES.get(relative(path)):
        assert list((ROOT / "docs" / "adr").glob(f"{adr}-*.md"))
    else:
        assert lines <= 300


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            body = node.body[1:] if has_docstring else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{relative(path)}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_postpones_its_annotations(path):
    assert "__future__.annotations" not in imports(path)  # it would turn jaxtyping's checks off


def experiment_floor(parts: Sequence[str]) -> str:
    """The folder of experiments/ that a module stands in, or QUESTIONS at its top."""
    is_folder = (ROOT / "experiments" / parts[0]).is_dir()
    return parts[0] if is_folder else QUESTIONS


@pytest.mark.parametrize("path", EXPERIMENTS, ids=relative)
def test_imports_of_experiments_point_down(path):
    here = experiment_floor(path.relative_to(ROOT / "experiments").with_suffix("").parts)
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "experiments":
            other = experiment_floor(rest.split("."))
            places = EXPERIMENT_FLOORS.index(other), EXPERIMENT_FLOORS.index(here)
            assert places[0] <= places[1], f"{here} imports {other}"
            assert other != QUESTIONS or here != QUESTIONS, f"{relative(path)} imports {name}"


def test_folders_of_experiments_say_what_belongs_there_and_only_questions_stand_at_the_top():
    folders = {path.parent.name: path for path in (ROOT / "experiments").glob("*/__init__.py")}
    assert folders.keys() == {*EXPERIMENT_FLOORS} - {QUESTIONS}
    for path in folders.values():
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, relative(path)
        assert "\n" not in docstring, relative(path)
    top = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__", "__main__"}
    assert top == {"translate", "grammar", "length", "lm", "sort", "generate"}


def test_modules_of_experiments_form_no_circle():
    """Within a folder, too: the modules can be put in an order in which imports point back."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in EXPERIMENTS}
    graphlib.TopologicalSorter(
        {
            module: {
                found
                for name in imports(path)
                for found in (name, name.rpartition(".")[0])
                if found in modules
            }
            for module, path in modules.items()
        }
    ).prepare()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=relative)
def test_experiments_use_public_names_only(path):
    private = [n for n in imports(path) if n.startswith("attn_jax.") and "._" in n]
    assert not private
