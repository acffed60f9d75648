"""The house rule: which room imports which, who knows a library, how large modules are, and that names exist."""

import ast
import builtins
import dis
import importlib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "argmax_vae"
FLOORS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"training", "report"},
    {"config"},
    {"gradients"},
    {"objective"},
    {"runs"},
    {"__init__"},
    {"models"},
    {"estimators"},
    {"data"},
    {"latents", "counter_noise", "files", "plugins", "streams"},
    {"errors", "interruption", "markup", "randomness", "statistics"},
]
"""From the top to the ground: a room imports itself and what is on lower floors."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
OWNERS = {
    "hydra": {"config"},
    "omegaconf": {"config"},
    "pytorch_lightning": {"training"},
    "lightning_fabric": {"training"},
    "wandb": {"runs"},
    "wandb_workspaces": {"commands"},
    "optuna": {"commands", "config"},
}
"""Libraries that only some rooms know."""
LARGEST_MODULE = 450
MODULES = sorted(PACKAGE.rglob("*.py"))
FILES = sorted(path for folder in ("src", "tests", "scripts") for path in (REPOSITORY / folder).rglob("*.py"))
"""Those of the tests and the scripts too."""


def name_of(path: Path) -> str:
    """The dotted name of a module within the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports(path: Path, at_once: bool = False) -> set[str]:
    """Modules that a module imports, those of the package by their dotted names; `at_once`: when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}".removeprefix("argmax_vae.")
                inner = node.module.removeprefix("argmax_vae").removeprefix(".") or "__init__"
                ours = node.module.startswith("argmax_vae")
                found.add(whole if ours and whole in NAMES else inner if ours else node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_lower_floors_alone(path: Path) -> None:
    room = name_of(path).split(".")[0]
    for other in imports(path) & NAMES:
        there = other.split(".")[0]
        assert there == room or FLOOR[there] > FLOOR[room], f"{name_of(path)} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libraries_are_known_to_their_rooms_alone(path: Path) -> None:
    room = name_of(path).split(".")[0]
    for library in {name.split(".")[0] for name in imports(path)} & set(OWNERS):
        assert room in OWNERS[library], f"{name_of(path)} imports {library}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_a_module_can_be_read_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LARGEST_MODULE


def test_no_import_goes_round() -> None:
    """Modules can be put in an order in which each needs only those before it."""
    needs = {name_of(path): imports(path, at_once=True) & NAMES - {name_of(path)} for path in MODULES}
    while ready := {name for name, others in needs.items() if not others}:
        needs = {name: others - ready for name, others in needs.items() if name not in ready}
    assert needs == {}


def within(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from within(constant)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__main__"], ids=name_of)
def test_no_function_uses_a_name_that_its_module_lacks(path: Path) -> None:
    """The linter and the type checker cannot tell: they take shapes, which are strings, for names."""
    module = importlib.import_module(f"argmax_vae.{name_of(path)}".removesuffix(".__init__"))
    known = {*vars(module), *vars(builtins)}
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True)
    used = {
        (function.co_name, step.argval)
        for function in within(code)
        for step in dis.get_instructions(function)
        if step.opname == "LOAD_GLOBAL"
    }
    assert {(function, name) for function, name in used if name not in known} == set()
