"""``python -m fastsoftmax.cli``."""

from fastsoftmax.cli import main

main()
