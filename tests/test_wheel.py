"""What an installation that is not editable holds; .ci/run builds the wheel and uses it from another folder."""

import tomllib

from inference.loading import ROOT

READ = ("programs/trained/*/*", "analysis/papers/*/measured/*")
"""Files, other than Python's, that commands read."""


def test_the_wheel_holds_every_file_that_is_read():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = about["tool"]["setuptools"]["package-data"]
    held = {p for package, names in globs.items() for n in names for p in (ROOT / package).glob(n)}
    for pattern in READ:
        files = {p for p in ROOT.glob(pattern) if p.is_file()}
        assert files and files <= held, f"pyproject.toml leaves out {files - held}"


def test_every_package_is_found():
    """A folder of modules without an __init__.py is a package to Python but not to setuptools' find."""
    for top in ("programs", "guides", "inference", "analysis"):
        for file in (ROOT / top).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), f"{file.parent} lacks __init__.py"
