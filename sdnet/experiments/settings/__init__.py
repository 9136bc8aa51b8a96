"""The settings: the site's, in config/config.yaml, and the presets', in config/presets/; each value is described."""
