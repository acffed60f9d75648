"""One line for every exception of Hydra and OmegaConf: what was given, and what is allowed."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from argmax_vae.errors import UsageError
from argmax_vae.options import all_keys, groups, nearest


@contextmanager
def one_line_errors(overrides: tuple[str, ...]) -> Iterator[None]:
    """Turns the exceptions of Hydra and OmegaConf into a UsageError of one line that names the culprit."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(explain(error, overrides)) from None


def explain(error: Exception, overrides: tuple[str, ...]) -> str:
    """One line for an error of Hydra or OmegaConf: what was given, and what is allowed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].rstrip(".") if lines else type(error).__name__
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        group = key.split("@", 1)[0]
        if f"'{key}'" in first and "Could not override" in first:
            return unknown_key(key)
        if f"'{group}/{value}'" in first and "Could not find" in first:
            options = groups().get(group) or [line for line in lines[1:] if " " not in line]
            return f"{override}: no such option{nearest(value, options)}; there are {', '.join(options)}"
        if first == f"Error merging override {override}" and error.__cause__ is not None:
            reason = str(error.__cause__).strip().splitlines()[0]
            return f"{override}: {'must be a list, such as [0,1]' if 'is not a ListConfig' in reason else reason}"
    details = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ": " in line}
    key = details.get("full_key", "")
    if "Interpolation key 'chosen." in first:
        latents = first.split("'chosen.", 1)[1].split("'", 1)[0]
        return f"{key}: none was chosen for model.latents={latents}; give {key}=VALUE"
    return f"{key}: {first}" if key and key not in first else first


def unknown_key(key: str) -> str:
    """One line for a key that the composed configuration does not have."""
    if key in all_keys():
        return f"key {key!r} belongs to another option of {key.split('.', 1)[0]}, choose that first"
    section = key.rpartition(".")[0]
    siblings = [known for known in all_keys() if section and known.startswith(f"{section}.")]
    close = nearest(key, siblings or all_keys())
    sections = sorted({known.split(".", 1)[0] for known in all_keys()})
    return f"unknown key {key!r}{close}" if close else f"unknown key {key!r}; there are {', '.join(sections)}"
