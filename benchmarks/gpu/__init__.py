"""Everything that only a GPU can tell, in stages of some seconds each: `make gpu`, or `python -m benchmarks.gpu`.

    supervisor   starts a child that runs the stages, kills it where one overruns, keeps what came back
    child        runs stages one after the other and sends what they find through a pipe
    stages       which there are, and how many seconds each has
    report       what a stage writes to: rows, checks, lines for the summary, texts
    results      all of it, on disk after every stage;  summary: the sixty lines at the end;  clocks: nvidia-smi

The supervisor and what it imports need neither torch nor Triton: it lives while the child hangs. docs/gpu.md says what
a machine needs and how to read what comes out.
"""
