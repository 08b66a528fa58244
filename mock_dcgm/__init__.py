"""Mock DCGM: simulated GPUs behind the exposition of dcgm-exporter."""
