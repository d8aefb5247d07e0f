"""`python -m mstrack` and `torchrun -m mstrack`: the `mst` command."""

from mstrack.cli import main

if __name__ == "__main__":
    main()
