"""Testing: metrics, multi-view evaluation, results and reports."""
