"""`python -m evosearch`: the command line."""

from evosearch.cli import program

if __name__ == "__main__":
    program()
