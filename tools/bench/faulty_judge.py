"""The process that tries candidates, with engines that go wrong on purpose (`tools.bench.faulty`)."""

import sys

from edge_runtime.update.trial import process
from tools.bench import faulty


class Live(process.Live):
    def run(self) -> None:
        faulty.live = True
        super().run()


if __name__ == "__main__":
    faulty.change("judge")
    process.Live = Live  # type: ignore[misc]
    sys.exit(process.main(sys.argv[1:]))
