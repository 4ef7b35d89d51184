"""What Triton compiles, and what it finds in its cache."""

import importlib.util


class Compilations:
    """Counts, within it, what Triton found in its cache, and keeps what was not there: (name, seconds,
    for what) of each.

    Where there is no Triton nothing is compiled.
    """

    def __enter__(self):
        self.hits: int = 0
        self.misses: list[tuple[str, float, str]] = []
        if importlib.util.find_spec("triton") is None:
            return self
        from triton import knobs

        self._before = knobs.compilation.listener
        knobs.compilation.listener = self._note
        return self

    def __exit__(self, *_):
        if importlib.util.find_spec("triton") is None:
            return
        from triton import knobs

        knobs.compilation.listener = self._before

    def _note(self, *, src, metadata, metadata_group, times, cache_hit) -> None:
        if cache_hit:
            self.hits += 1
        else:
            of = {**getattr(src, "signature", {}), **getattr(src, "constants", {})}
            self.misses.append((src.name, times.total / 1e6, str(of)))
