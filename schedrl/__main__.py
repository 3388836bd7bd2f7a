"""``python -m schedrl`` is the ``schedrl`` command."""

from schedrl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
