"""A day of uploads on paper: ways to make jobs of them, simulated. See docs/scale.md."""
