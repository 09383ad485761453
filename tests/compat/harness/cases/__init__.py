"""The cases; importing a module registers what it holds, so the order here is the order in which they run."""

from . import send, consume, group, quickstart, admin, lookup, go, reverse, move, deploy, reads  # noqa: F401, I001
