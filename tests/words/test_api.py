"""Public names and signatures are those of ``api.txt``, and are documented.

After a change on purpose: ``python tests/words/test_api.py > tests/words/api.txt`` and read its diff.
"""

import functools
import importlib
import inspect
import re
import types
from pathlib import Path

import blackjax
import pytest

SNAPSHOT = Path(__file__).parent / "api.txt"
MODULES = ["flowmcmc", "flowmcmc.losses", "flowmcmc.numpyro", "ebm"]


def public():
    """``{"flowmcmc.sample": sample, ...}``; a name that `ebm` takes over from `flowmcmc` too."""
    modules = [importlib.import_module(name) for name in MODULES]
    return {f"{m.__name__}.{name}": getattr(m, name) for m in modules for name in m.__all__}


def rendered(value) -> str:
    """A default, without addresses or the module that a library keeps it in today."""
    if isinstance(value, functools.partial):
        inside = [rendered(value.func), *map(rendered, value.args)]
        return f"partial({', '.join(inside + [f'{k}={rendered(v)}' for k, v in value.keywords.items()])})"
    if type(value).__module__.startswith("blackjax"):  # its constructors print with addresses
        return next(f"blackjax.{name}" for name, known in vars(blackjax).items() if known is value)
    return getattr(value, "__qualname__", None) or repr(value)


def signature(thing) -> str:
    """Names, kinds and defaults of parameters; annotations print differently from one Python to the next."""
    parameters = inspect.signature(thing).parameters.values()
    plain = [
        p.replace(annotation=p.empty, default=Shown(p.default) if p.default is not p.empty else p.empty)
        for p in parameters
    ]
    return str(inspect.Signature(plain))


class Shown:
    """A default that prints as `rendered`."""

    def __init__(self, value):
        self.text = rendered(value)

    def __repr__(self):
        return self.text


def own_members(cls):
    """Public methods and properties written in the class itself, by name."""
    kinds = (types.FunctionType, property, functools.cached_property)
    return {n: v for n, v in vars(cls).items() if not n.startswith("_") and isinstance(v, kinds)}


def snapshot() -> str:
    lines = []
    for name, thing in sorted(public().items()):
        if isinstance(thing, types.ModuleType):
            lines.append(f"{name} module")
        elif not isinstance(thing, type | types.FunctionType):
            lines.append(f"{name} alias")
        else:
            lines.append(f"{name}{signature(thing)}")
        if isinstance(thing, type):
            for member, value in sorted(own_members(thing).items()):
                lines.append(f"{name}.{member}{signature(value) if inspect.isfunction(value) else ' property'}")
    return "\n".join(lines) + "\n"


def documented(doc: str, section: str) -> set[str]:
    """Names that the entries of a NumPy section begin with."""
    found = re.search(rf"^{section}\n-+\n(.*?)(?=\n\n\S+\n-+\n|\Z)", doc, flags=re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^\S.*$", found[1], flags=re.MULTILINE) if found else []
    return {name.strip().lstrip("*") for entry in entries for name in entry.split(",")}


FUNCTIONS = {name: thing for name, thing in public().items() if isinstance(thing, types.FunctionType)}
CLASSES = {name: thing for name, thing in public().items() if isinstance(thing, type)}


def test_names_and_signatures_are_those_of_the_snapshot():
    assert snapshot() == SNAPSHOT.read_text(), "meant? python tests/words/test_api.py > tests/words/api.txt"


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_a_docstring_begins_with_a_summary(name):
    first = inspect.getdoc(public()[name]).split("\n\n")[0]
    assert not first.startswith(public()[name].__name__ + "("), "what NamedTuple and dataclass write by themselves"
    assert first.rstrip().endswith((".", ";")) and "---" not in first, first


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_documented(name):
    asked = set(inspect.signature(FUNCTIONS[name]).parameters)
    assert documented(inspect.getdoc(FUNCTIONS[name]), "Parameters") == asked


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_and_method_is_documented(name):
    cls = CLASSES[name]
    doc = inspect.getdoc(cls)
    fields = getattr(cls, "_fields", None) or getattr(cls, "__dataclass_fields__", None)
    named = documented(doc, "Attributes") | documented(doc, "Parameters") | set(re.findall(r"`(\w+)", doc))
    assert set(fields or inspect.signature(cls).parameters) <= named
    assert all(inspect.getdoc(member) for member in own_members(cls).values())


if __name__ == "__main__":
    print(snapshot(), end="")
