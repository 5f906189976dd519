"""Training: plans and recipes, estimators, objectives, images, checkpoints, and the command line."""

from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent

for _name in ("programs", "guides", "analysis"):
    _spec = find_spec(_name)
    _folders = (
        [] if _spec is None else [Path(f).resolve() for f in _spec.submodule_search_locations or []]
    )
    if _ROOT / _name not in _folders:
        raise ImportError(
            f"a package called {_name!r} at {_spec and _spec.origin} hides scene-programs' own: rename it, "
            "or run from another folder"
        )
