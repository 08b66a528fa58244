"""Pictures of telemetry: what to show (`select`), the data (`query`), the drawing (`draw`), the command (`run`)."""
