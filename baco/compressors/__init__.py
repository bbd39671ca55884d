"""What a compressor is, what it may cost, and how a budget is filled."""
