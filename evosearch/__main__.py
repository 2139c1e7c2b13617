"""`python -m evosearch`: the command line."""

from evosearch.cli import main

if __name__ == "__main__":
    main()
