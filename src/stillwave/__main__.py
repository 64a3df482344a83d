"""`python -m stillwave`: the command line."""

from stillwave.pipeline.cli import main

if __name__ == "__main__":
    main()
