"""What flows through the pipeline: the metric catalogue, the event, and what is checked. Imports nothing of ours."""
