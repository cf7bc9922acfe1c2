"""Packages that only some files need, imported when they are used."""

import importlib
from typing import Any


class MissingPackageError(ImportError, ValueError):
    """A package that is not part of a plain installation is needed and not there."""


def optional_package(name: str, extra: str, purpose: str) -> Any:
    """Return a package that an extra of this distribution installs.

    Args:
        name: of the module to import.
        extra: that holds its package.
        purpose: what needs it, in words that begin the message.

    Raises:
        MissingPackageError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise MissingPackageError(
            f"{purpose} needs the package {package}, which is not installed; install the extra: pip install "
            f"'riemannian-flow-matching[{extra}]'"
        ) from None
