"""`python -m benchmarks.gpu`."""

from attnmod.benchmarks.gpu.supervisor import main

if __name__ == "__main__":
    raise SystemExit(main())
