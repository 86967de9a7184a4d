"""``python -m gateway``, the same as ``decorum``."""

from gateway.cli import main

if __name__ == "__main__":
    main()
