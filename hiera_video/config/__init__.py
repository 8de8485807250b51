"""Configuration: YAML files and `key=value` overrides become one frozen `Config`."""
