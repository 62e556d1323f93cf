"""``python -m fastsoftmax.cli``."""

from fastsoftmax.cli import main

if __name__ == "__main__":
    main()
