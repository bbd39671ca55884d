"""Co-clustering in SQL, on engines that people already run."""
