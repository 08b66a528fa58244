"""XIDs from NVML and the kernel log: heard, counted, told."""
