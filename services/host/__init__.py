"""The box itself: what it is doing, one reading at a time, its systemd units."""
