"""Files on their way into a pipeline: what is sent, that it would be scored, what became of it."""
