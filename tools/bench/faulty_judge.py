"""The process that tries candidates, with engines that go wrong on purpose (`tools.bench.faulty`)."""

import sys

from edge_runtime.update.trial.process import main
from tools.bench import faulty

if __name__ == "__main__":
    faulty.change("judge")
    sys.exit(main(sys.argv[1:]))
