"""What runs cost, or would: usage, prices, sums."""
