"""What a valid CreateTransformJob request is. Standard library only."""
