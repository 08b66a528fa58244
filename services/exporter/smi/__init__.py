"""`nvidia-smi -q -x` as a source of readings, and its documents kept whole."""
