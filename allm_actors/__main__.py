"""`python -m allm_actors` is the command line."""

from allm_actors.cli import main

if __name__ == "__main__":
    main()
