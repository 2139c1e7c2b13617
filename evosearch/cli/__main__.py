"""Lets `python -m evosearch.cli` be the command line."""

from evosearch.cli import program

if __name__ == "__main__":
    program()
