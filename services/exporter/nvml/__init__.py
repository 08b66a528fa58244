"""NVML, NVIDIA's management library, as a source of readings."""
