"""`gpumon ollama-bench`: speed, heat and energy of the models of an Ollama server."""
