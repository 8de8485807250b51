"""The plain ViT of VideoMAE, with joint attention over space and time, to compare Hiera with."""
