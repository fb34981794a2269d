"""From a labelled folder to a signed bundle: data → train → calibrate → quantise → pack → sign → evaluate."""
