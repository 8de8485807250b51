"""The demo page: `hiera-video app`."""
