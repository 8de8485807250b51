"""Maps that show what a Hiera bases its answer on."""
