"""What may import what, how long a function may be, and what the folder of programs holds."""

import ast
from pathlib import Path

import pytest

from inference.loading import ROOT, own_programs

PACKAGES = ("programs", "guides", "inference", "analysis")
FLOORS = (
    ("programs.scene", "programs.blocks"),
    ("programs.worlds",),
    ("programs",),
    ("guides",),
    ("inference",),
    ("inference.svi", "inference.search"),
    ("analysis.command",),
    ("analysis.scores",),
    ("analysis.posterior",),
    ("analysis.edit", "analysis.plots", "analysis.judges", "analysis.studies"),
    ("analysis.evaluate", "analysis.gradients"),
    ("analysis.benchmark", "analysis.revisions", "analysis.stepper"),
    ("analysis.generation", "analysis.dreams", "analysis.refine", "analysis.calibrate"),
    ("analysis.compare", "analysis.studio"),
    ("analysis.papers",),
    ("analysis.report", "analysis.results"),
)
"""From the ground up; a module stands on the floor of the longest name that it begins with."""
COMMANDS = ("analysis.papers.item", "analysis.results", "inference.search")
"""Modules of commands that train, or read and write command lines of trainings."""
TRAINERS = ("inference.svi", "inference.search")
LONGEST = 40
"""Lines of a function's body, its docstring apart."""
TOO_LONG: set[str] = set()
"""Functions that are still longer; none may be added."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
MODULES = {module_of(path): path for path in FILES}


def floor(module: str) -> int:
    names = {name: i for i, names in enumerate(FLOORS) for name in names}
    fitting = [name for name in names if f"{module}.".startswith(f"{name}.")]
    assert fitting, f"give {module} a place in FLOORS"
    return names[max(fitting, key=len)]


def imports(module: str) -> set[str]:
    """The project's modules that a module names, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys() - {module, *PACKAGES}


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_up(module):
    above = {i for i in imports(module) if floor(i) > floor(module)}
    if module in TRAINERS:
        above -= {"analysis.evaluate"}  # its main hands the trainer what measures
    assert not above, f"{module} imports {above}, which stand above it"


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainers_alone_import_what_measures_and_only_in_their_main(trainer):
    tree = ast.parse(MODULES[trainer].read_text(encoding="utf-8"))
    importing = [
        statement.name if isinstance(statement, ast.FunctionDef) else "the module"
        for statement in tree.body
        for node in ast.walk(statement)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("analysis")
    ]
    assert importing == ["main"]


@pytest.mark.parametrize("name", own_programs())
def test_a_program_imports_scene_and_blocks_alone(name):
    allowed = ("programs.scene", "programs.blocks")
    other = {i for i in imports(f"programs.{name}") if not i.startswith(allowed)}
    assert not other, f"programs.{name} imports {other}"


def test_only_commands_train():
    users = {m for m in MODULES if "inference.svi" in imports(m)}
    assert users <= {*COMMANDS}, f"{users} import inference.svi"


def test_papers_are_imported_by_the_report_alone():
    users = {m for m in MODULES if any(i.startswith("analysis.papers") for i in imports(m))}
    outside = {m for m in users if not m.startswith("analysis.papers")}
    assert outside <= {"analysis.report", "analysis.results"}


def test_the_folder_of_programs_has_programs_alone():
    files = {path.stem for path in (ROOT / "programs").glob("*.py")}
    assert files - {"__init__", "scene"} == {*own_programs()}


def lengths(module: str) -> dict[str, int]:
    """Lines of every function's body without its docstring."""
    found = {}
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            found[f"{module}.{node.name}"] = max(lines, found.get(f"{module}.{node.name}", 0))
    return found


def test_no_function_is_long():
    every = {name: n for module in MODULES for name, n in lengths(module).items()}
    long = {name for name, n in every.items() if n > LONGEST}
    assert long <= TOO_LONG, f"{long - TOO_LONG} have more than {LONGEST} lines"
    assert long >= TOO_LONG, f"take {TOO_LONG - long} off the list: they are short now"


def test_files_of_tests_have_names_of_their_own():
    """Without packages of tests, pytest takes two files of one name for one module."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice
