"""Checks the shape annotations of the package at every call, through jaxtyping's import hook and beartype.

torch.compile traces neither isinstance checks on tensors nor jaxtyping's wrapper, so inside a traced function
the annotations go unchecked: `unless_traced` takes the wrapper's place and calls the plain function there.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jaxtyping
import torch
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning

HOOKED = ("argmax_vae",)
"""The whole package."""

jaxtyped = jaxtyping.jaxtyped


def typechecker(function: Any) -> Any:
    """beartype, taking an int for a float as Python's type checkers do, whatever it thinks of annotations of others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)
        return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


def has_shapes(target: Any) -> bool:
    """Whether an annotation of a function, or of a class, has a shape. Others are mypy's business."""
    return "jaxtyping." in repr(list(inspect.get_annotations(target).values()))


def unless_traced(target: Any, *, typechecker: Callable[..., Any]) -> Any:
    """`jaxtyping.jaxtyped` with the checks off while torch.compile traces, and for what has no shapes."""
    if (inspect.isclass(target) or inspect.isfunction(target)) and not has_shapes(target):
        return target
    if inspect.isclass(target):
        plain = target.__init__
        jaxtyped(target, typechecker=typechecker)
        if target.__init__ is not plain:
            target.__init__ = either(plain, target.__init__)
        return target
    if isinstance(target, classmethod | staticmethod):
        return type(target)(unless_traced(target.__func__, typechecker=typechecker))
    if isinstance(target, property):
        return property(target.fget and unless_traced(target.fget, typechecker=typechecker), target.fset, target.fdel)
    return either(target, jaxtyped(target, typechecker=typechecker))


def decorator(*, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(unless_traced, typechecker=typechecker)


def either(plain: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*arguments: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return plain(*arguments, **named)
        return checked(*arguments, **named)

    return call


def install() -> None:
    """Install the hook; to be called before the package is imported."""
    jaxtyping.jaxtyped = decorator
    jaxtyping.install_import_hook(HOOKED, "shape_checks.typechecker")
