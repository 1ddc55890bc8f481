"""How Sphinx builds the site: Markdown pages, API pages from docstrings, nothing fetched from the network."""

from importlib.metadata import version as installed

project = "flowmcmc"
author = copyright = "The flowmcmc developers"
release = version = installed("flowmcmc")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a page may begin with a section of the README, one level down

highlight_language = "none"  # indented blocks of docstrings are equations and tables

# in docstrings, as in the NumPy style, `name` is a name of the API where there is one
default_role = "py:obj"
autodoc_typehints = "none"  # docstrings say what is needed; aliases of "any pytree" would say nothing
autodoc_preserve_defaults = True  # as written, not the repr of functions
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = napoleon_attr_annotations = False
# "trace, warmup" names two attributes, as it would two parameters
napoleon_custom_sections = [("Attributes", "params_style")]

html_theme = "furo"
html_title = "flowmcmc"
html_show_sourcelink = html_copy_source = False
