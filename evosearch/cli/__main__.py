"""Lets `python -m evosearch.cli` be the command line."""

from evosearch.cli import main

if __name__ == "__main__":
    main()
