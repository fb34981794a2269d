"""`control` with engines that go wrong on purpose (`tools.bench.faulty`)."""

import sys
from functools import partial

from edge_runtime.child import child_main
from edge_runtime.control_process import run
from tools.bench import faulty

if __name__ == "__main__":
    faulty.change("control")
    spare = "--spare" in sys.argv
    sys.exit(child_main("control", partial(run, spare=spare), [a for a in sys.argv[1:] if a != "--spare"]))
