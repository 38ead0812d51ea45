"""Results that are kept: a document is read once by a model, and found again by whoever asks."""
