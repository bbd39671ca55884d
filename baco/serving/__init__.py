"""What a trained model leaves behind, and recommendations from it."""
