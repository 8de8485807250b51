"""Action detection: lists of boxes, clips around key frames, transforms that move boxes along."""
