"""Videos to tensors: manifest → which frames → decoded frames → transforms → batches. Importing this imports nothing."""
