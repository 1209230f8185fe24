"""The floors of the house: imports point down, optional packages stay in functions, all is short."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bmsdp"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    "_version kernels io theory",
    "qn operators linear_maps pattern_map gram perturbation factorization verified proof schur slack_form constraints cone facial shift "
    "gallery rounding",
    "manifolds",
    "problem penalty",
    "minimize result solvers preconditioners certificate free_rows sharpen checkpoint dimacs lanczos curvature least_squares refine",
    "staircase rank_reduction smoothed looks augmented_lagrangian",
    "sdp methods outcome detect presolve presolved free cuts rays interior_point check",
    "applications",
    "cli poses arguments report __main__ plot interfaces learned",
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms.split()}
EDGES = len(FLOORS) - 1
HOME = {"numba": "kernels", "torch": "learned/"}  # rooms that are about nothing else; those of torch are the folders of learned/
OPTIONAL = {"numba", "cvxpy", "matplotlib", "networkx", "pymanopt", "torch", "tqdm", "sklearn", "autograd"}


def module_of(path, package=PACKAGE):
    """("problem",) for bmsdp/problem.py, ("io",) for bmsdp/io/__init__.py, () for the façade."""
    parts = path.relative_to(package).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for path in FILES}


def inside_functions(tree):
    """Nodes that run, if ever, only when a function is called or a type checker reads them."""
    late = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            late.update(ast.walk(node))
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            late.update(inner for statement in node.body for inner in ast.walk(statement))
    return late


def imported(path, source=None, known=None):
    """(line, absolute dotted name as a tuple, whether it runs at import) for every import of a file."""
    tree = ast.parse(path.read_text() if source is None else source)
    late = inside_functions(tree)
    home = ("bmsdp", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            targets = [with_submodule(base, alias.name, MODULES if known is None else known) for alias in node.names]
        else:
            continue
        for target in targets:
            yield node.lineno, target, node not in late


def with_submodule(base, name, known):
    """``from bmsdp import problem`` imports a module, ``from bmsdp import solve`` the façade."""
    return (*base, name) if base[:1] == ("bmsdp",) and (*base[1:], name) in known else base


def floor_of(module):
    return FLOOR[module[0]] if module else EDGES


def violations(path, source=None, known=None):
    """What the imports of one file do against the floors."""
    module = module_of(path)
    folder = path.parent
    for line, target, at_import in imported(path, source, known):
        place = f"{path.relative_to(PACKAGE.parent)}:{line}: imports {'.'.join(target)}"
        if target[0] != "bmsdp":
            at_home = folder.relative_to(PACKAGE).as_posix().startswith(HOME.get(target[0], "nowhere"))
            if target[0] in OPTIONAL and at_import and not at_home:
                yield f"{place} when it is itself imported; import it inside the function that uses it"
            continue
        if floor_of(target[1:]) > floor_of(module):
            yield f"{place}, floor L{floor_of(target[1:])}, from L{floor_of(module)}; imports point down only"
        if floor_of(module) == 0 and (folder == PACKAGE or target[1:2] != module[:1]):
            yield f"{place}; L0 sees arrays and numbers, and imports nothing of bmsdp but siblings in its own folder"
        if module[0] == "applications" and target[1:2] == ("kernels",):
            yield f"{place}; applications never touch kernels"


HOUSE = [path for path in FILES if module_of(path)]


def name(path):
    return str(path.relative_to(PACKAGE.parent))


@pytest.mark.parametrize("path", HOUSE, ids=name)
def test_every_file_is_on_a_floor(path):
    assert module_of(path)[0] in FLOOR, "give it a place in the table of floors, above and in CONTRIBUTING.md"


@pytest.mark.parametrize("path", HOUSE, ids=name)
def test_imports_point_down(path):
    assert not list(violations(path))


def test_no_import_cycle():
    graph = {
        module: {target[1:] for _, target, at_import in imported(path) if at_import and target[0] == "bmsdp"} - {()}
        for module, path in MODULES.items()
        if module
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("path", "source", "caught"),
    [
        ("problem.py", "from .manifolds.base import Manifold", 0),
        ("problem.py", "from .minimize import minimize", 1),
        ("problem.py", "def f():\n    from bmsdp.sdp import solve", 1),
        ("problem.py", "from . import staircase", 1),
        ("problem.py", "from bmsdp import solve", 1),
        ("manifolds/oblique.py", "from ..kernels import csr\nfrom .base import Manifold", 0),
        ("manifolds/oblique.py", "from .. import problem", 1),
        ("cli.py", "import bmsdp\nfrom . import solve", 0),
        ("io/rudy.py", "from .errors import FormatError", 0),
        ("io/rudy.py", "from ..kernels import csr", 1),
        ("theory/rank.py", "from bmsdp import _version", 1),
        ("kernels/csr.py", "import numba\nfrom . import rows", 0),
        ("kernels/csr.py", "import torch", 1),
        ("operators.py", "import numba", 1),
        ("operators.py", "try:\n    from matplotlib import pyplot\nexcept ImportError:\n    pass", 1),
        ("operators.py", "def f():\n    import numba.typed", 0),
        ("operators.py", "if TYPE_CHECKING:\n    import networkx", 0),
        ("plot.py", "import matplotlib", 1),
        ("learned/petra/stage.py", "import torch", 0),
        ("learned/petra/stage.py", "import numba", 1),
        ("learned/__init__.py", "import torch", 1),
        ("applications/maxcut.py", "from ..kernels import local_search", 1),
    ],
)
def test_the_checker_catches(path, source, caught):
    known = {("problem",), ("staircase",), ("kernels", "rows"), ("kernels", "csr"), ("_version",)}
    assert len(list(violations(PACKAGE / path, source, known))) >= caught
    assert caught or not list(violations(PACKAGE / path, source, known))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400, "does it hold two rooms?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = node.end_lineno - node.lineno + 1
            assert size <= 60, f"{node.name} has {size} lines; a function fits on a screen"


@pytest.mark.parametrize("path", sorted({*PACKAGE.glob("manifolds/*.py")} - {PACKAGE / "manifolds/base.py"}), ids=name)
def test_manifolds_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} is above 60 lines: is calculus derived again?"


def test_importing_bmsdp_imports_no_slow_or_optional_package():
    watched = sorted(OPTIONAL - {"sklearn"})
    code = f"import sys, bmsdp; print(*[name for name in {watched} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
