"""baco: embedding-table compression by balanced co-clustering, and a fair comparison with other methods.

The experiment reads as its modules do: a dataset (`baco.data`) and a budget (`baco.budget`) go into a compressor
(`baco.compressor`, `baco.coclustering`, the `baselines` package), which returns embedding tables (`baco.tables`); a
backbone (`baco.backbones`) is trained on them (`baco.training`), ranked (`baco.evaluation`) and recorded
(`baco.results`). `baco.experiment` is where the parts meet.
"""

__version__ = "0.1.0"
