"""baco: embedding-table compression by balanced co-clustering, and a fair comparison with other methods.

The experiment reads as the packages do. A dataset (`baco.data`) and a budget go into a compressor (`baco.compressors`,
`baco.coclustering`, the `baselines` package). It returns embedding tables (`baco.embedding`). A backbone
(`baco.backbones`) is trained on them (`baco.training`) and ranked (`baco.evaluation`). The run is recorded
(`baco.runs`), and records become tables and figures (`baco.results`).
"""

__version__ = "0.1.0"
