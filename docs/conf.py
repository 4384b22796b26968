# SPDX-License-Identifier: Apache-2.0
"""How Sphinx turns the docstrings into pages: `make docs`."""

import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import xloss

project = "xloss"
author = "The xloss authors"
release = version = xloss.__version__
html_title = f"xloss {release}"
html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "0.76em"}}
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
nitpicky = True
default_role = "code"  # `name` in a docstring is code
smartquotes_action = "D"  # dashes only: [..., K] stays as it is
add_module_names = False
toc_object_entries = False

# A page a function, of those that a room's __all__ lists.
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"  # the docstrings say shape, dtype and range
napoleon_numpy_docstring = False
napoleon_use_param = False  # arguments that share a description are told once
napoleon_use_rtype = False
napoleon_custom_sections = ["Numerics", ("Attributes", "params_style")]


def about_its_module(app, what, name, obj, options, lines):
    """Adds what the module says to the page of what it has: the paper, and when to use it."""
    module = sys.modules.get(getattr(obj, "__module__", ""))
    if what in ("function", "class") and module and module.__name__.startswith("xloss."):
        short = module.__name__.removeprefix("xloss.")
        lines += [f".. rubric:: About {short}", "", *inspect.getdoc(module).splitlines(), ""]


ARXIV = re.compile(r"\barXiv (\d{4}\.\d{4,5})")


def as_plain_text(app, what, name, obj, options, lines):
    """Escapes bars, stars and underscores: docstrings mark code up, and nothing else."""
    literal = None  # how far the paragraph that announces a literal block is indented
    example = False  # a prompt and what it prints, up to an empty line
    for number, line in enumerate(lines):
        text = line.lstrip()
        indent = len(line) - len(text)
        example = bool(text) and (example or text.startswith(">>>"))
        if literal is not None and text and indent <= literal:
            literal = None
        if literal is None and not example and not text.startswith(".. "):
            parts = re.split(r"(``.+?``|`.+?`_*)", line)
            parts[::2] = [re.sub(r"([*|]|_(?!\w))", r"\\\1", part) for part in parts[::2]]
            lines[number] = ARXIV.sub(r"`\g<0> <https://arxiv.org/abs/\1>`__", "".join(parts))
            if line.endswith("::"):
                literal = indent


def skip_what_is_generated(app, what, name, obj, skip, options):
    """Leaves out a NamedTuple's fields, which "Attributes:" describes, and hooks of pytrees."""
    text = getattr(obj, "__doc__", None) or ""
    return True if text.startswith("Alias for field") or name.startswith("tree_") else None


def setup(app):
    # Before napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", about_its_module, priority=300)
    app.connect("autodoc-process-docstring", as_plain_text, priority=400)
    app.connect("autodoc-skip-member", skip_what_is_generated)
