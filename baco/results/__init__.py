"""Records of finished runs, and the tables made from them. Nothing here needs torch."""
