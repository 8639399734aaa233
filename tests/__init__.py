"""The claims of etude, and what tests them."""

import os

# The models are tiny, and several test processes with all cores each would wait for one another. It must be said
# before torch is loaded, and the bits of a sum depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
