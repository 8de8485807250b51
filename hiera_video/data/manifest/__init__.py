"""Lists of videos and labels, in every form that data sets come in."""
