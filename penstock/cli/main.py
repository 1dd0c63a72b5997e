"""Where the `penstock` command begins: an interrupt ends it quietly, even while it is loading."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command."""
    try:
        from penstock.cli.app import build, is_for_callers

        build(with_server_verbs=not is_for_callers(sys.argv[1:]))()
    except KeyboardInterrupt:
        sys.exit(130)
