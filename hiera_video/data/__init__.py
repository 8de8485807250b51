"""Videos to tensors: manifest → frame indices → decoded frames → transforms → batches.

Importing this package imports nothing else.
"""
