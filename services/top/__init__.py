"""GPUs in the terminal: where they are read (`local`, `exporter`, `database`), what they show, and the screen."""
