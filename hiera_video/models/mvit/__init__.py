"""From MViTv2 to Hiera: the models of the paper's ablation, one switch a rung."""
