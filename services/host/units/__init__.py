"""Templates of the systemd user units: `gpumon install-units` fills them in (services.host.install_units)."""
