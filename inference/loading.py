"""Find a program and its guide in a Python file, and build them.

A file may have one of three forms:

* ``programs/NAME.py`` with a `Program`, and ``guides/NAME.py`` beside it with a `Guide`;
* one file with both a `Program` and a `Guide` (a user's own);
* one file with two functions `model(images)` and `guide(images)` in Pyro's classic style, their
  parameters registered by ``pyro.module`` or ``pyro.param``.

A `Program` may have a frozen dataclass `Config` (its only argument) and a table `VARIANTS` of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
from torch import Tensor, nn

from programs.blocks.names import meant_file

TABLES = (
    "expected Config, a dataclass with a default for every field, and VARIANTS, a table of Configs"
)
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Source:
    """A program file that was found to be usable."""

    name: str
    path: Path
    program: ModuleType
    guide: ModuleType

    @property
    def variants(self) -> Mapping[str, Any]:
        """Configurations by name; a program without a table has one, named after the file.

        Raises:
            ValueError: the file's Config or VARIANTS is something else.
        """
        kind = getattr(self.program, "Config", None)
        if not hasattr(self.program, "Program") and not is_dataclass(kind):
            return {self.name: None}  # of functions, which take none
        try:
            found = getattr(self.program, "VARIANTS", None)
            if found is None:
                found = {self.name: kind() if kind else None}
            good = bool(found) and all(is_dataclass(c) or c is None for c in found.values())
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{self.path}: {error}; {TABLES}") from error
        if not good:
            raise ValueError(f"{self.path}: {TABLES}")
        return found

    @property
    def named(self) -> Path:
        """The path by which the file is found from any folder: relative to the project, or absolute."""
        path = self.path.resolve()
        return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path

    @property
    def stem(self) -> str:
        """The program's name if it is one of the project's programs, which have recipes; else empty."""
        return own_stem(self.path)

    def build(self, config: Any) -> tuple[nn.Module, nn.Module]:
        """A program and its guide with fresh parameters."""
        if not hasattr(self.program, "Program"):
            for function in (self.program.model, self.guide.guide):
                _check_call(function, self.path)
            return Function(self.program.model), Function(self.guide.guide)
        given = () if config is None else (config,)
        program = _made(self.program.Program, self.path, *given)
        guide = _made(self.guide.Guide, self.path, program)
        for module in (program, guide):
            _check_call(module, self.path)
        return program, guide

    @contextmanager
    def blamed(self, doing: str, torchs: bool = True) -> Iterator[None]:
        """Inside, an error of torch or of a user's file becomes one sentence that names the file's line.

        Args:
            torchs: whether a RuntimeError is that of the program or guide wherever it is raised.
        Raises:
            ValueError: instead of it.
        """
        try:
            yield
        except (ValueError, FloatingPointError):
            raise
        except Exception as error:
            files = {self.program.__file__, self.guide.__file__}
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
            runtime = isinstance(error, RuntimeError)
            if not (runtime and torchs) and (self.stem or not frames):
                raise
            line = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
            kind = "" if runtime else f"{type(error).__name__}: "
            reason = kind + str(error).partition("\n")[0]
            raise ValueError(f"{self.name} cannot {doing}: {reason}{line}") from error


def _made(kind: Callable[..., nn.Module], path: Path, *given: Any) -> nn.Module:
    """An instance of a class of a file; of a user's Guide also if it takes no program.

    Raises:
        ValueError: it cannot be made; the message says why, and names the line.
    """
    own = path.resolve().is_relative_to(ROOT)
    with_none = not own and not inspect.signature(kind).parameters
    try:
        return kind() if with_none else kind(*given)
    except ValueError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == path.resolve()]
        at = f", line {lines[-1]}" if lines else ""
        raise ValueError(
            f"{kind.__name__} of {path}{at} cannot be made: {type(error).__name__}: {error}; a Program takes "
            "nothing or its Config, a Guide its program"
        ) from error


def _check_call(called: Any, path: Path) -> None:
    """See that a program or guide is called with images alone.

    Raises:
        ValueError: it is no function or module, or has other arguments without a default.
    """
    name = getattr(called, "__name__", type(called).__name__)
    try:
        if isinstance(called, type):
            raise TypeError("a class, of which no object is made")
        inspect.signature(getattr(called, "forward", called)).bind(None)
    except TypeError as error:
        raise ValueError(
            f"{name} of {path} cannot be called with images alone ({error}): write {name}(images), and give "
            "what else it takes a default"
        ) from error


def takes_batch(called: Callable) -> bool:
    """Whether a program can be called without images, as ``program(batch=16)``.

    A first argument of that name is no number but the images.
    """
    parameters = [*inspect.signature(called).parameters.values()]
    named = any(p.name == "batch" for p in parameters[1:])
    return named or any(p.kind is p.VAR_KEYWORD for p in parameters)


class Function(nn.Module):
    """A plain Pyro function as a module: its parameters are those that it puts in Pyro's store."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function
        self.names: list[str] = []
        object.__setattr__(self, "nets", {})  # not registered: their parameters are in the store

    def forward(self, images: Tensor | None = None, **kwargs: Any) -> Any:
        """Call the function and remember which parameters and networks it uses.

        Raises:
            ValueError: it is called without images, as ``(batch=16)``, and does not take `batch`.
        """
        if images is None and "batch" in kwargs and not takes_batch(self.function):
            raise ValueError(
                f"{self.function.__name__} cannot be sampled without images: write it as "
                f"{self.function.__name__}(images=None, batch=1), with `batch` images if there are none"
            )
        with self._watched(), pyro.poutine.trace(param_only=True) as tracer:
            result = self.function(images, **kwargs)
        self.names += [name for name in tracer.trace.nodes if name not in {*self.names, "_RETURN"}]
        return result

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Inside, networks given to `pyro.module` are remembered, and take this module's mode."""
        original = pyro.module

        def module(name: str, net: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
            found = original(name, net, *args, **kwargs)
            self.nets[name] = found
            return found.train(self.training)

        pyro.module = pyro.primitives.module = module
        try:
            yield
        finally:
            pyro.module = pyro.primitives.module = original

    def train(self, mode: bool = True) -> Function:
        """Training or evaluation mode, of the networks too."""
        for net in self.nets.values():
            net.train(mode)
        return super().train(mode)

    def _buffers_by_name(self) -> dict[str, Tensor]:
        return {f"{n}$$${k}": b for n, net in self.nets.items() for k, b in net.named_buffers()}

    def named_parameters(self, *_: Any, **__: Any) -> Iterable[tuple[str, Tensor]]:
        """Unconstrained parameters by their name in the store; call the function once first."""
        store = dict(pyro.get_param_store().named_parameters())
        return ((name, store[name]) for name in self.names if name in store)

    def parameters(self, recurse: bool = True) -> Iterable[Tensor]:
        """The same without names."""
        return (tensor for _, tensor in self.named_parameters())

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """Unconstrained values, and the networks' buffers, by name."""
        named = dict(self.named_parameters()) | self._buffers_by_name()
        return {name: tensor.detach().clone() for name, tensor in named.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], *_: Any, **__: Any) -> None:
        """Copy values into the store; the function must have run once."""
        own = dict(self.named_parameters()) | self._buffers_by_name()
        if own.keys() != state.keys():
            raise ValueError(f"the run has parameters {sorted(state)}, the program {sorted(own)}")
        for name, tensor in own.items():
            tensor.data.copy_(state[name])


def load(path: str | Path) -> Source:
    """Import a program file and find its guide.

    Raises:
        ValueError: no such file, a file that does not import, or no program or guide in it.
    """
    path = located(path)
    if not path.is_file():
        known = [f"programs/{name}.py" for name in own_programs()]
        near = meant_file(path, [*path.parent.glob("*.py"), *known])
        raise ValueError(f"no program file {str(path)!r}{near} the project has {', '.join(known)}")
    if path.suffix != ".py":
        raise ValueError(
            f"{str(path)!r} is not a Python file: give a program such as programs/gsgn.py"
        )
    program = import_file(path)
    beside = path.resolve().parent.parent / "guides" / path.name
    if hasattr(program, "Program") and not hasattr(program, "Guide") and beside.is_file():
        guide = import_file(beside)
    else:
        guide = program
    classes = hasattr(program, "Program") and hasattr(guide, "Guide")
    functions = hasattr(program, "model") and hasattr(guide, "guide")
    if not classes and not functions:
        raise ValueError(
            f"{str(path)!r} holds no program: it needs a class Program with a class Guide (here, or in "
            f"guides/{path.name}), or two functions model(images) and guide(images); of an object that has "
            "both, write model, guide = it.model, it.guide"
        )
    return Source(path.stem, path, program, guide)


def located(path: str | Path) -> Path:
    """A program file's path; the project's own programs are found from any folder."""
    path = Path(path)
    if not path.is_file() and not path.is_absolute() and (ROOT / path).is_file():
        return ROOT / path
    return path


def own_stem(path: Path) -> str:
    """The stem of a file in programs/, also the stem of its recipes; empty for any other file."""
    return path.stem if path.resolve().parent == ROOT / "programs" else ""


def own_programs() -> list[str]:
    """Stems of the project's programs, which are the files that have a guide."""
    return sorted(p.stem for p in (ROOT / "guides").glob("*.py") if p.stem != "__init__")


def import_file(path: Path) -> ModuleType:
    """The module in a Python file: by its package's name if it is the project's own.

    Raises:
        ValueError: the file does not import; the message says why.
    """
    path = path.resolve()
    name = ".".join((path.parent.name, path.stem))
    if path.parent in (ROOT / "programs", ROOT / "guides"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"user_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{str(path)!r} does not import: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def imported(name: str, option: str) -> Callable:
    """The callable ``module:callable``.

    Args:
        option: the option that asked for the callable, named in the error.
    Raises:
        ValueError: there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{option} {name!r}: expected MODULE:CALLABLE ({error})") from error
    if not callable(found):
        raise ValueError(f"{option} {name!r} is a {type(found).__name__}: expected MODULE:CALLABLE")
    return found
