"""`python -m attnmod` is the same as the command `attnmod`."""

from attnmod.sampler.cli import main

raise SystemExit(main())
