"""`python -m erank_lite`, which is `erank-lite`."""

from erank_lite.cli import main

main()
