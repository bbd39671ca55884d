"""Records of finished runs, and the tables, figures and batches made from them. Nothing here needs torch."""
