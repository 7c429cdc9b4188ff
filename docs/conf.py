"""The site: `make docs` builds these pages into build/docs (docs/adr/0020)."""

import hashlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # for the chapters, which run in processes of their own

import attn_jax  # noqa: E402

project = "attn_jax"
release = attn_jax.__version__
author = "The attn_jax authors"
copyright = "The attn_jax authors, Apache-2.0"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docs._extensions.api_pages",
    "docs._extensions.docstrings",
    "docs._extensions.gallery",
    "docs._extensions.links",
    "docs._extensions.mathml",
    "docs._extensions.name_links",
    "docs._extensions.signatures",
]
include_patterns = ["*.md", "**/*.md", "course/[0-9]*.py"]
exclude_patterns = ["_*", "gallery/README.md"]
nitpicky = True
highlight_language = "text"
# Types in signatures that belong to other libraries; a wrong name of ours is an error.
nitpick_ignore_regex = [("py:.*", r"(?!attn_jax\.).*")]

# Pages
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Docstrings
default_role = "code"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Returns", "Numerics", "Cost", ("Attributes", "params_style")]
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
add_module_names = False


# Chapters of the course: programs that run once for each state of the sources.
def digest_of_sources() -> str:
    """A short hash of all files that a chapter may use, and of the versions of the packages."""
    used = [ROOT / "requirements" / "dev.txt", *(ROOT / "docs" / "gallery").rglob("*.json")]
    for folder in ("attn_jax", "experiments"):
        used += [
            path
            for path in (ROOT / folder).rglob("*.*")
            if path.is_file() and path.suffix != ".pyc"
        ]
    digest = hashlib.sha256()
    for path in sorted(used):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_merge_streams = True  # a loop that prints is one box
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "chapters" / digest_of_sources())
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_ipywidgets_js = {}  # no script from another site

# HTML
html_theme = "furo"
html_title = f"attn_jax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_search_summary = False  # summaries are fetched, which a page opened as a file may not do
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/attn-jax/attn_jax/",
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
